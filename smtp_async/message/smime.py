"""S/MIME 4.0 (RFC 8551): messages that are signed, and messages that are encrypted.

Strategy. The content of a message, its Content- fields and everything behind the header, becomes a MIME entity of its
own, and all other fields stay where they are: in clear, also in an encrypted message. A detached signature
(multipart/signed) needs only a hash of that entity, which is computed while it passes by, so the message may be larger
than memory. An opaque signature, a signer that makes the whole container, and encryption need it in memory, and have a
limit.

To sign and to encrypt are two steps over the same message, in the order in which they are given.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Final, NamedTuple, get_args

from ..errors import InvalidAddress, InvalidArgument, SigningError
from ..model.address import Address
from ..model.octets import base64_lines
from ..model.signing import HashAlgorithm, Rewritten, Signer, ToSign, is_remote
from .cms_envelope import Cipher, RSAPadding, enveloped
from .cms_signature import (
    certificate_attribute,
    demand_asn1,
    hash_for,
    received,
    signed_attributes,
    signed_data,
)
from .header_parser import fields_of, mailboxes_in
from .mail_certificate import MailCertificate, certificates_of
from .sign import ExternalSigner, public_key_of, signer_of, verifies

__all__ = ["MAX_SIZE", "SMIMEEncryption", "SMIMESignature"]

#: Octets of a message that is kept in memory.
MAX_SIZE: Final = 32 * 1024 * 1024

_MICALG: Final[dict[HashAlgorithm, str]] = {"sha256": "sha-256", "sha384": "sha-384", "sha512": "sha-512"}


@dataclass(frozen=True, slots=True)
class SMIMESignature:
    """An S/MIME signature for the messages of one author; the same object signs any number of messages.

    Attributes:
        certificate: the signer's: a `Certificate`, one of the package cryptography, or bytes in PEM or DER. None only
            for an `ExternalSigner` that returns a CMS SignedData, in which its certificate is.
        key: the key of that certificate: a private key of the package cryptography, a key on a token, what
            `KeySigner.load` returns, an `ExternalSigner`, or an async callable. It never shows.
        chain: the certificates that lead to an authority, without the last; they are sent along, unless the signer
            returns a CMS SignedData.
        detached: the message stays readable without S/MIME, and the signature stands beside it (multipart/signed). If
            false, both are in one part, which servers on the way cannot change.
        hash_algorithm: the hash to sign with; None takes the one that fits the key.
        check_author: refuse a message of which neither From nor Sender is in the certificate, if it has addresses.
        max_size: octets of a message that has to be in memory: if `detached` is false, or the signer returns a CMS
            SignedData.

    Raises:
        InvalidArgument: the certificate cannot be read, or does not permit to sign mail, or is not that of the key.
        FeatureUnavailable: the extra `[smime]` is needed.
    """

    certificate: Any
    key: Any = field(repr=False)
    _: KW_ONLY
    chain: Any = ()
    detached: bool = True
    hash_algorithm: HashAlgorithm | None = None
    check_author: bool = True
    max_size: int = MAX_SIZE
    signer: Signer = field(init=False, repr=False, compare=False)
    # The attribute that names the certificate: the same in every signature.
    named: bytes = field(init=False, repr=False, compare=False)

    #: The message is rebuilt, so that the next way of signing is given what this one has made.
    prepends = False
    unless_signed = False

    def __post_init__(self) -> None:
        demand_asn1()
        _check_size(self.max_size)
        if self.hash_algorithm is not None and self.hash_algorithm not in get_args(HashAlgorithm):
            raise InvalidArgument(
                f"hash_algorithm is one of {', '.join(get_args(HashAlgorithm))}, not {self.hash_algorithm!r}"
            )
        certificate = None
        if self.certificate is not None:
            (certificate,) = certificates_of("certificate", [self.certificate])
            certificate.permitting("sign")
        signer = _signer(self.key, certificate)
        hash_algorithm = hash_for(
            signer.key_algorithm,
            public_key_of(signer) if certificate is None else certificate.public_key,
            self.hash_algorithm or (signer.hash_algorithm if is_remote(signer) else None),
        )
        put = object.__setattr__
        put(self, "certificate", certificate)
        put(self, "chain", certificates_of("chain", self.chain))
        put(self, "signer", signer)
        put(self, "hash_algorithm", hash_algorithm)
        named = b"" if certificate is None else certificate_attribute(certificate, hash_algorithm)
        put(self, "named", named)

    def begin(self, header: bytes, now: float) -> SMIMESigning:
        """Begin to sign a message.

        Args:
            header: its header, up to and including the empty line.
            now: seconds since the epoch.

        Raises:
            SigningError: the certificate is not valid now, or not the author's.
        """
        if self.certificate is not None:
            self.check(self.certificate, header, now)
        return SMIMESigning(self, header, now)

    def check(self, certificate: MailCertificate, header: bytes, now: float) -> None:
        """Refuse a certificate that is not valid at `now`, or not the author's.

        Raises:
            SigningError: it is not.
        """
        certificate.check_time(now)
        if self.check_author:
            certificate.check_author(_authors(header))

    @property
    def makes_container(self) -> bool:
        """Whether the signer returns a CMS SignedData."""
        return _makes_container(self.signer)


class SMIMESigning:
    """The signing of one message."""

    __slots__ = (
        "_content",
        "_eightbit",
        "_hash",
        "_hash_name",
        "_header",
        "_now",
        "_parts",
        "_smime",
        "_attributes",
    )

    def __init__(self, smime: SMIMESignature, header: bytes, now: float) -> None:
        self._smime = smime
        self._header = header
        self._now = now
        self._parts = _parted(header)
        self._hash_name = smime.hash_algorithm or "sha256"
        self._hash = hashlib.new(self._hash_name)
        self._eightbit = False
        self._attributes = b""
        in_memory = not smime.detached or smime.makes_container
        hint = "" if smime.makes_container else ", or sign detached"
        self._content = _Collected(smime.max_size, hint) if in_memory else None
        self.feed(self._parts.inner)

    def feed(self, data: bytes) -> None:
        """Take the next octets.

        Raises:
            SigningError: there are too many to be kept in memory.
        """
        self._hash.update(data)
        self._eightbit = self._eightbit or not data.isascii()
        if self._content is not None:
            self._content.add(data)

    def end(self) -> Sequence[ToSign]:
        """Return what is to be signed: the attributes, or for a signer that makes the container, the content."""
        smime = self._smime
        if smime.makes_container:
            assert self._content is not None
            return [ToSign(smime.signer, self._content.join(), self._hash_name)]
        digest = self._hash.digest()
        self._attributes = signed_attributes(digest, self._now, smime.named)
        return [ToSign(smime.signer, self._attributes, self._hash_name)]

    def finish(self, signatures: Sequence[bytes]) -> Rewritten:
        """Return the signed message.

        Raises:
            SigningError: what the signer returned is no SignedData about this message.
        """
        smime = self._smime
        hash_name = self._hash_name
        content = None if smime.detached or self._content is None else self._content.join()
        if smime.makes_container:
            container, hash_name = self._received(signatures[0])
        else:
            wanted = ToSign(smime.signer, self._attributes, hash_name)
            if not verifies(smime.certificate.public_key, signatures[0], wanted):
                raise SigningError("the signature does not verify with the certificate")
            container = signed_data(
                self._attributes,
                signatures[0],
                smime.signer.key_algorithm,
                hash_name,
                [smime.certificate, *smime.chain],
                content,
            )
        if smime.detached:
            return self._beside(container, hash_name)
        return _instead(self._parts, container, "signed-data")

    def _received(self, answer: bytes) -> tuple[bytes, HashAlgorithm]:
        smime = self._smime
        assert self._content is not None
        container, hash_name, certificate = received(
            answer,
            self._content.join(),
            within=not smime.detached,
            certificate=smime.certificate,
            signer=smime.signer,
        )
        smime.check(certificate, self._header, self._now)
        return container, hash_name

    def _beside(self, container: bytes, hash_name: HashAlgorithm) -> Rewritten:
        """Return a multipart/signed of the content and its signature (RFC 8551 section 3.5.3)."""
        boundary = f"=_smime-{secrets.token_hex(16)}"
        kind = (
            'Content-Type: multipart/signed; protocol="application/pkcs7-signature";\r\n'
            f' micalg={_MICALG[hash_name]}; boundary="{boundary}"\r\n'
        )
        if self._eightbit:
            # RFC 2045 section 6.4: a multipart is labelled with what its parts need.
            kind += "Content-Transfer-Encoding: 8bit\r\n"
        part = (
            f"\r\n--{boundary}\r\n"
            "Content-Type: application/pkcs7-signature; name=smime.p7s\r\n"
            "Content-Transfer-Encoding: base64\r\n"
            "Content-Disposition: attachment; filename=smime.p7s\r\n\r\n"
        )
        before = f"{kind}\r\n--{boundary}\r\n".encode()
        after = part.encode() + base64_lines(container) + f"\r\n--{boundary}--\r\n".encode()
        return Rewritten(self._parts.outer + before + self._parts.inner, len(self._header), after)


@dataclass(frozen=True, slots=True)
class SMIMEEncryption:
    """S/MIME encryption for several recipients; the same object encrypts any number of messages.

    Each of them can read the message, and see for whom else it is encrypted: send blind copies apart. The fields of the
    header, Subject among them, stay in clear. A message is encrypted for the certificates that are given here, whoever
    it is addressed to.

    Attributes:
        recipients: their certificates, and the author's own if the author is to read it again: each a `Certificate`,
            one of the package cryptography, or bytes in PEM or DER.
        cipher: `"aes-256-gcm"` also protects the content from being changed. `"aes-256-cbc"` is for readers older than
            RFC 8551 (2019); sign first then.
        rsa_padding: how the key of the content is encrypted for RSA keys: `"pkcs1"` as every reader knows it, or
            `"oaep"` with SHA-256.
        max_size: octets of a message, all of which has to be in memory.

    Raises:
        InvalidArgument: a certificate cannot be read or does not permit to encrypt mail, or there is none.
        FeatureUnavailable: the extra `[smime]` is needed.
    """

    recipients: Any
    _: KW_ONLY
    cipher: Cipher = "aes-256-gcm"
    rsa_padding: RSAPadding = "pkcs1"
    max_size: int = MAX_SIZE

    #: The message is rebuilt, so that the next way of signing is given what this one has made.
    prepends = False
    unless_signed = False

    def __post_init__(self) -> None:
        demand_asn1()
        _check_size(self.max_size)
        for name, allowed in (("cipher", get_args(Cipher)), ("rsa_padding", get_args(RSAPadding))):
            if getattr(self, name) not in allowed:
                raise InvalidArgument(f"{name} is one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        found = certificates_of("recipients", self.recipients)
        if not found:
            raise InvalidArgument("a message is encrypted for one certificate or more")
        for one in found:
            one.permitting("encrypt")
        object.__setattr__(self, "recipients", tuple({one.der: one for one in found}.values()))

    def begin(self, header: bytes, now: float) -> SMIMEEncrypting:
        """Begin to encrypt a message.

        Args:
            header: its header, up to and including the empty line.
            now: seconds since the epoch.

        Raises:
            SigningError: a recipient's certificate is not valid now.
        """
        for one in self.recipients:
            one.check_time(now)
        return SMIMEEncrypting(self, header)


class SMIMEEncrypting:
    """The encryption of one message."""

    __slots__ = ("_content", "_parts", "_smime")

    def __init__(self, smime: SMIMEEncryption, header: bytes) -> None:
        self._smime = smime
        self._parts = _parted(header)
        self._content = _Collected(smime.max_size, "")
        self._content.add(self._parts.inner)

    def feed(self, data: bytes) -> None:
        """Take the next octets.

        Raises:
            SigningError: there are too many to be kept in memory.
        """
        self._content.add(data)

    def end(self) -> Sequence[ToSign]:
        """Return nothing, because nothing is to be signed."""
        return []

    def finish(self, signatures: Sequence[bytes]) -> Rewritten:
        """Return the encrypted message."""
        smime = self._smime
        container = enveloped(self._content.join(), smime.recipients, smime.cipher, smime.rsa_padding)
        kind = "authEnveloped-data" if smime.cipher == "aes-256-gcm" else "enveloped-data"
        return _instead(self._parts, container, kind)


class _Collected:
    """Octets that have to be in memory.

    Args:
        limit: the most of them.
        hint: what else a user can do than raise the limit.
    """

    __slots__ = ("_hint", "_limit", "_pieces", "_size")

    def __init__(self, limit: int, hint: str) -> None:
        self._limit = limit
        self._hint = hint
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            raise SigningError(
                f"the message has more than {self._limit} octets, which S/MIME needs in memory: raise max_size"
                f"{self._hint}"
            )
        self._pieces.append(data)

    def join(self) -> bytes:
        self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]


class _Parts(NamedTuple):
    """A header, cut in two.

    Attributes:
        outer: the fields that stay, MIME-Version included.
        inner: those that describe the content, with an empty line behind them.
    """

    outer: bytes
    inner: bytes


def _parted(header: bytes) -> _Parts:
    fields, end = fields_of(header)
    inner = [one.octets for one in fields if one.name.startswith("content-")]
    others = [one for one in fields if not one.name.startswith("content-") and one.name != "mime-version"]
    outer = [one.octets.removesuffix(b"\r\n") + b"\r\n" for one in others]
    outer.append(b"MIME-Version: 1.0\r\n")
    # Where the header is empty, what is taken for it may have octets of the body behind its empty line.
    rest = header[end:].removeprefix(b"\r\n")
    return _Parts(b"".join(outer), b"".join([*inner, b"\r\n", rest]))


def _instead(parts: _Parts, container: bytes, kind: str) -> Rewritten:
    """Return a message whose content is a CMS container (RFC 8551 section 3.2)."""
    fields = (
        f"Content-Type: application/pkcs7-mime; smime-type={kind};\r\n name=smime.p7m\r\n"
        "Content-Transfer-Encoding: base64\r\n"
        "Content-Disposition: attachment; filename=smime.p7m\r\n\r\n"
    )
    return Rewritten(parts.outer + fields.encode() + base64_lines(container), None)


def _makes_container(signer: Signer) -> bool:
    return is_remote(signer) and signer.method == "pkcs7"


def _check_size(size: object) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise InvalidArgument(f"max_size is a number of octets, not {size!r}")


def _signer(key: Any, certificate: MailCertificate | None) -> Signer:
    """Return the signer for a key.

    Raises:
        InvalidArgument: it is not the key of the certificate, as far as that is known.
    """
    signer = signer_of(key)
    if certificate is None:
        if not _makes_container(signer):
            raise InvalidArgument("the signer's certificate is needed, unless it returns a CMS SignedData")
        return signer
    if isinstance(signer, ExternalSigner) and signer is not key and certificate.key_algorithm is not None:
        # A callable alone says nothing of its key, the certificate does.
        return replace(signer, key_algorithm=certificate.key_algorithm)
    public_key = public_key_of(signer)
    if signer.key_algorithm != certificate.key_algorithm or (
        public_key is not None and public_key != certificate.public_key
    ):
        raise InvalidArgument(f"the key is not that of the certificate: {certificate.name}")
    return signer


def _authors(header: bytes) -> list[Address]:
    """Return the addresses of From and Sender; a field that cannot be read has none."""
    found: list[Address] = []
    for one in fields_of(header)[0]:
        if one.name in ("from", "sender"):
            try:
                found += mailboxes_in(one)
            except InvalidAddress:
                continue
    return found
