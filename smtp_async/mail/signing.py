"""Signs a message: renders it once, and puts the signatures around the same octets.

Strategy. A signature must be true wherever the message goes, so the message is rendered once, for a server without
extensions (RFC 6376 section 5.3). Its octets are fed to each `Signing`, then the signatures are requested, and the same
octets are sent with the signatures around them. What is in memory stays there. What is read while it is sent is
read twice, the first time here; what can be read only once is kept on disk meanwhile.

Ways of signing that only add fields in front of the header share one reading. After any other the message is read
again, because the next one signs what that has made of it.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Final, cast

from ..errors import (
    ExtensionMissing,
    InvalidArgument,
    InvalidHeader,
    SignerUnavailable,
    SigningError,
    SMTPError,
)
from ..message.dkim import DKIM
from ..message.sign import KeySigner
from ..model.content import JOINED, Attached, Content, Mail, Source, segments_of
from ..model.octets import normalised
from ..model.signing import (
    LocalSigner,
    MessageSigner,
    RemoteSigner,
    Rewritten,
    Signing,
    SignRequest,
    ToSign,
    is_remote,
)
from ..sources import (
    Body,
    DiskCopy,
    LineMender,
    LineScan,
    RawSource,
    TempDir,
    aclose_origin,
    close_origin,
    in_thread,
)
from ..sources.unsent import UnsentSources
from .key_records import require_record
from .rendered import RenderedMail
from .signing_threads import in_signing_thread

__all__ = ["signed"]

#: The most octets of a header.
_MOST_HEADER: Final = 1 << 20
_END: Final = b"\r\n\r\n"


async def signed(
    mail: Mail,
    sign: Sequence[MessageSigner],
    *,
    temp_dir: TempDir = None,
    heavy: bool = False,
    clock: Callable[[], float] = time.time,
) -> RenderedMail:
    """Return `mail`, signed in all ways of `sign`.

    Args:
        mail: the message. Its sources are closed if this fails, as far as they are to be closed.
        sign: the ways, in this order.
        temp_dir: where a source that can be read only once is stored.
        heavy: there is so much in memory that it is rendered in a thread.
        clock: the time, in seconds since the epoch.

    Raises:
        SigningError: it cannot be signed, or none of the ways is for its author.
        SignerUnavailable: a signer raised, or did not answer in time.
        SMTPError: it cannot be rendered or read.
    """
    work: _Work | None = None
    try:
        envelope = mail.envelope()
        keys = _keys_at_hand(sign)
        if keys:
            begin = partial(_begun_at_once, mail, sign, temp_dir, clock())
            if all([key.quick for key in keys]) and not heavy:
                work = begin()
            elif heavy or not all([isinstance(key, KeySigner) for key in keys]):
                work = await in_thread(begin)
            else:
                work = await in_signing_thread(begin)
        else:
            content = await in_thread(partial(_rendered, mail)) if heavy else _rendered(mail)
            work = _Work(content, temp_dir)
        for members in () if work.signatures else [sign] if len(sign) == 1 else _sharing(sign):
            await work.sign(members, clock())
        if not work.signatures:
            raise SigningError("no signature is for the domain of the author: it would leave unsigned")
    except BaseException:
        await UnsentSources(mail, None if work is None else work.content).aclose()
        raise
    return RenderedMail(envelope, work.content)


def _sharing(sign: Sequence[MessageSigner]) -> Iterator[Sequence[MessageSigner]]:
    """Yield the ways of signing in groups that share one reading."""
    for prepends, group in groupby(sign, lambda one: one.prepends):
        if prepends:
            yield tuple(group)
        else:
            yield from [(one,) for one in group]


def _rendered(mail: Mail) -> Content:
    """Return the content for a server without extensions, or with those that it cannot do without.

    Raises:
        InvalidArgument: it is to stay exactly as it is, with line ends that no signature can cover.
    """
    try:
        content = mail.content()
    except ExtensionMissing:
        # A header field contains an internationalised address: no server without SMTPUTF8 can take the message.
        content = mail.content(utf8=True)
    if any([isinstance(source, RawSource) for source in content.sources]):
        # Whether it needs 8BITMIME is found out while it is read.
        content = mail.content(eightbit=True, utf8=True)
    if content.exact and content.binary:
        raise InvalidArgument("a message with bare CR or LF cannot be signed (RFC 6376 section 5.3)")
    return content


def _keys_at_hand(sign: Sequence[MessageSigner]) -> list[LocalSigner]:
    """Return the keys to sign with, none if anything has to be awaited for one of the signatures."""
    keys = []
    for one in sign:
        key = one.local_key if isinstance(one, DKIM) else None
        if key is None:
            return []
        keys.append(key)
    return keys


def _begun_at_once(mail: Mail, sign: Sequence[MessageSigner], temp_dir: TempDir, now: float) -> _Work:
    """Render a message, and sign it if it is small; in a thread, if a signature takes its time.

    A hundred messages that are begun at once would otherwise hold up the event loop for milliseconds.
    """
    work = _Work(_rendered(mail), temp_dir)
    content = work.content
    if not content.sources and (content.size or 0) <= JOINED:
        read = work.read_now(sign, now)
        work.add(
            [signing.finish([_local_signature(wanted) for wanted in signing.end()]) for _, signing in read]
        )
    return work


class _Work:
    """A message while it is being signed.

    Args:
        content: the message.
        temp_dir: where a source that can be read only once is stored.

    Attributes:
        content: what has become of it so far; its sources are to be closed if the rest fails.
        signatures: how many have signed it.
    """

    def __init__(self, content: Content, temp_dir: TempDir) -> None:
        self.content = content
        self.signatures = 0
        self._temp_dir = temp_dir

    async def sign(self, members: Sequence[MessageSigner], now: float) -> None:
        """Sign in the ways of `members`, which share one reading."""
        content = self.content
        if content.sources or (content.size or 0) > JOINED:
            reading = _Reading(members, now)
            await self._read(reading)
            reading.end()
            read = reading.signings
        else:
            read = self.read_now(members, now)
        given = [(signing, await _signatures(member, signing)) for member, signing in read]
        if members[0].prepends:
            self.add([signing.finish(signatures) for signing, signatures in given])
            return
        # All of the message is written into a container, or encrypted: that takes its time.
        content = self.content
        self.content = await in_thread(partial(_rebuilt, content, given))
        self.signatures += len(given)
        if content.sources and not self.content.sources:
            # What was read while it was signed is in memory now.
            await Body(content).aclose()

    def read_now(self, members: Sequence[MessageSigner], now: float) -> list[tuple[MessageSigner, Signing]]:
        """Read what is small and in memory; return those of `members` that sign it, each with what it was begun by."""
        content = self.content
        data = content.join()
        if not (content.canonical or content.exact):
            data = normalised(data)
        end = data.find(_END) + len(_END)
        if end < len(_END):
            end = len(data)  # there is nothing but a header
        found = []
        for one in members:
            signing = one.begin(data[:end], now)
            if signing is not None:
                if end < len(data):
                    signing.feed(data[end:])
                found.append((one, signing))
        return found

    def add(self, made: Sequence[Rewritten]) -> None:
        """Add what the signatures have made of the message; the first one stands on top."""
        for rewritten in reversed(made):
            self.content = _rewritten(self.content, rewritten)
        self.signatures += len(made)

    async def _read(self, reading: _Reading) -> None:
        """Read what is large or not in memory, and copy what can be read only once."""
        content = self.content
        body = Body(content, temp_dir=self._temp_dir)
        copies: dict[int, DiskCopy] = {}
        scan = LineScan(ends=False)
        try:
            await body.open()
            once = body.read_once_only()
            copies |= {id(source): DiskCopy(source, self._temp_dir) for source in once}
            mender = None if content.canonical or content.exact else LineMender()
            async for data, source in body.chunks():
                if id(source) in copies:
                    await copies[id(source)].write(data)
                if isinstance(source, RawSource):
                    scan.feed(data)
                reading.take(data if mender is None else mender.mend(data))
            reading.take(b"" if mender is None else mender.end())
            body.pin()
            kept = {key: await copy.seal() for key, copy in copies.items()}
        except BaseException:
            for copy in copies.values():
                copy.close()
            await body.aclose(streams=False)
            raise
        self.content = _with_copies(content, kept, scan)
        await body.aclose(streams=False)
        for source in once:
            if source.close:
                await _close(source)


class _Reading:
    """One reading of a message, for all signatures that share it.

    Attributes:
        signings: those that sign it, each with what it was begun by.
    """

    def __init__(self, members: Sequence[MessageSigner], now: float) -> None:
        self.signings: list[tuple[MessageSigner, Signing]] = []
        self._members = members
        self._now = now
        # The header as far as it was read, None behind it.
        self._head: bytearray | None = bytearray()

    def take(self, data: bytes) -> None:
        """Take the next octets: the header to its end, then the body.

        Raises:
            InvalidHeader: the header is too large.
        """
        head = self._head
        if head is None:
            self._feed(data)
            return
        searched = max(0, len(head) - len(_END) + 1)
        head += data
        end = head.find(_END, searched)
        if end >= 0:
            self._begin(bytes(head[: end + len(_END)]))
            self._feed(bytes(head[end + len(_END) :]))
        elif len(head) > _MOST_HEADER:
            raise InvalidHeader(f"the header has no empty line within {_MOST_HEADER} octets")

    def end(self) -> None:
        """Take the end of the message, which may have nothing but a header."""
        if self._head is not None:
            self._begin(bytes(self._head))

    def _begin(self, header: bytes) -> None:
        self._head = None
        begun = [(one, one.begin(header, self._now)) for one in self._members]
        self.signings = [(one, signing) for one, signing in begun if signing is not None]

    def _feed(self, data: bytes) -> None:
        if data:
            for _, signing in self.signings:
                signing.feed(data)


# --- signatures ----------------------------------------------------------------------------------------------


async def _signatures(member: MessageSigner, signing: Signing) -> list[bytes]:
    """Return the signatures that a message needs to be signed by one member."""
    if isinstance(member, DKIM) and member.check_record:
        await require_record(member)
    return [await _signature(one) for one in signing.end()]


async def _signature(wanted: ToSign) -> bytes:
    """Return a signature; a key that takes its time is used in a thread.

    Raises:
        SigningError: there is none, or what was returned is none.
        SignerUnavailable: the signer raised, or did not answer in time.
    """
    signer = wanted.signer
    if is_remote(signer):
        return await _answer(signer, wanted)
    if cast(LocalSigner, signer).quick:
        return _local_signature(wanted)
    # Any other key may wait for a device.
    hop = in_signing_thread if isinstance(signer, KeySigner) else in_thread
    return await hop(partial(_local_signature, wanted))


def _local_signature(wanted: ToSign) -> bytes:
    """Return the signature of a key in this process; raises as `_signature`."""
    try:
        return cast(LocalSigner, wanted.signer).sign(wanted)
    except SMTPError:
        raise
    except Exception as error:
        raise SigningError(f"the key does not sign: {type(error).__name__}") from error


async def _answer(signer: RemoteSigner, wanted: ToSign) -> bytes:
    """Return the signature of a signer outside of this library; raises as `_signature`."""
    request = await _request(signer, wanted)
    try:
        async with asyncio.timeout(signer.timeout):
            answering: object = signer.ask(request)
            answer = await answering if inspect.isawaitable(answering) else answering
    except SMTPError:
        raise
    except TimeoutError as error:
        raise SignerUnavailable(f"the signer did not answer within {signer.timeout:g} s") from error
    except Exception as error:
        raise SignerUnavailable(f"the signer raised {type(error).__name__}") from error
    return signer.accepted(wanted, request, answer)


async def _request(signer: RemoteSigner, wanted: ToSign) -> SignRequest:
    if len(wanted.data) <= JOINED:
        return signer.request(wanted)
    # A whole message, which takes its time to be hashed.
    return await in_thread(partial(signer.request, wanted))


# --- the signed message --------------------------------------------------------------------------------------


def _rebuilt(content: Content, given: Sequence[tuple[Signing, Sequence[bytes]]]) -> Content:
    """Return what becomes of a message by its signatures."""
    for signing, signatures in given:
        content = _rewritten(content, signing.finish(signatures))
    return content


def _with_copies(content: Content, kept: dict[int, Source], scan: LineScan) -> Content:
    """Return `content` with the copies of what could be read only once, and with what the reading has found.

    Args:
        content: what was read.
        kept: the copies, each under the identity of its source.
        scan: has seen the octets of raw sources.
    """
    raw = any([isinstance(source, RawSource) for source in content.sources])
    if not kept and not raw:
        return content
    segments = [one if isinstance(one, bytes) else kept.get(id(one), one) for one in content.segments]
    in_memory = [one for one in segments if isinstance(one, bytes)]
    eightbit = scan.eightbit or not all([one.isascii() for one in in_memory]) if raw else content.eightbit
    return _like(content, segments, size=None, eightbit=eightbit, attached=content.attached)


def _rewritten(content: Content, rewritten: Rewritten) -> Content:
    """Return `content` with what a signature adds to it."""
    before, start, after = rewritten
    if start is None:
        return Content.of_bytes(before + after)
    if start == 0 and not (after or content.sources or content.attached or content.binary or content.exact):
        return Content.of_octets(
            before + content.join(),
            eightbit=content.eightbit,
            utf8=content.utf8,
            message_id=content.message_id,
            canonical=content.canonical,
        )
    if start and not content.canonical and not content.exact:
        # What was signed had its line ends corrected, and may have another length.
        content = _corrected(content)
    kept = list(_from(content.segments, start))
    moved = len(before) - start
    pieces = [before, *kept, after] if after else [before, *kept]
    size = None if content.size is None else content.size + moved + len(after)
    attached = tuple([Attached(one.name, one.start + moved, one.end + moved) for one in content.attached])
    return _like(content, segments_of(pieces), size=size, eightbit=content.eightbit, attached=attached)


def _corrected(content: Content) -> Content:
    """Return `content` with CRLF at the end of each line.

    Raises:
        SigningError: a part of it is not in memory.
    """
    if content.sources:
        raise SigningError("the line ends of the message are not known before it is read")
    data = normalised(content.join())
    return _like(content, (data,), size=len(data), eightbit=content.eightbit, attached=())


def _from(segments: Sequence[bytes | Source], start: int) -> Iterator[bytes | Source]:
    """Yield the segments from the octet `start` on, which is in memory."""
    for segment in segments:
        if start and isinstance(segment, bytes):
            passed = min(start, len(segment))
            start -= passed
            segment = segment[passed:]
        elif start:
            raise SigningError("the header of the message is not in memory")
        if segment:
            yield segment


def _like(
    content: Content,
    segments: Sequence[bytes | Source],
    *,
    size: int | None,
    eightbit: bool,
    attached: tuple[Attached, ...],
) -> Content:
    """Return other content that needs of a server what `content` needs, but for `eightbit`."""
    return Content(
        segments,
        size=size,
        eightbit=eightbit,
        utf8=content.utf8,
        binary=content.binary,
        message_id=content.message_id,
        canonical=content.canonical,
        exact=content.exact,
        attached=attached,
    )


async def _close(source: Source) -> None:
    if hasattr(source.origin, "__aiter__"):
        await aclose_origin(source.origin)
    else:
        close_origin(source.origin)
