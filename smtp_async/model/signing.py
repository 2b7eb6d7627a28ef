"""The contract between ways of signing messages, the driver that reads the messages, and the signers that have keys.

A message is signed in two steps, because a key may be on another machine. A `MessageSigner` (DKIM, S/MIME) begins a
`Signing` for each message. That is given the octets of the message, says what has to be signed, and is given the
signatures, from which it makes the octets that are added to the message. It neither waits nor reads. Its driver
(`mail/signing`) reads the message and awaits the signatures.

`SignRequest` and `SignAnswer` are what a signer outside of this library is asked, and answers.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeGuard, runtime_checkable

from ..errors import InvalidArgument
from .secret import Secret

__all__ = [
    "AskSigner",
    "HashAlgorithm",
    "KeyAlgorithm",
    "LocalSigner",
    "MessageSigner",
    "Method",
    "RemoteSigner",
    "Rewritten",
    "SignAnswer",
    "SignRequest",
    "Signer",
    "Signing",
    "ToSign",
    "is_remote",
    "signers_of",
]

#: Kinds of keys.
KeyAlgorithm = Literal["rsa", "ec", "ed25519"]
#: Names of hashes, as `hashlib` has them.
HashAlgorithm = Literal["sha256", "sha384", "sha512"]
#: What a remote signer returns: a bare signature, or a CMS SignedData with one (for S/MIME only).
Method = Literal["pkcs1", "pkcs7"]


class SignRequest(NamedTuple):
    """What a signer outside of this library is asked to sign. Either `data` or `hash` is None.

    Attributes:
        data: the octets to be signed, where the signer hashes them.
        hash: their hash, where this library hashes them.
        hash_algorithm: the hash that the signature is to be made with.
        key_algorithm: the kind of the key.
        method: what is to be returned: `"pkcs1"` is a signature (of an RSA key by PKCS #1 v1.5, RFC 8017 section 8.2;
            of an elliptic key in DER), `"pkcs7"` a CMS SignedData (RFC 5652) about `data`, which is not in it.
        key_id: names the key, or the secret behind `mac`.
        params: a text that is passed on as it is.
        echo: a text that has to come back unchanged with the answer.
        mac: HMAC-SHA256 of all the others, by the secret that both sides know; empty if there is none.
    """

    data: bytes | None
    hash: bytes | None
    hash_algorithm: HashAlgorithm = "sha256"
    key_algorithm: KeyAlgorithm = "rsa"
    method: Method = "pkcs1"
    key_id: str = ""
    params: str = ""
    echo: str = ""
    mac: bytes = b""

    def __repr__(self) -> str:
        what = f"{len(self.data)} octets" if self.data is not None else f"a {self.hash_algorithm} hash"
        return f"<SignRequest for {what}, {self.key_algorithm}, {self.method}, key {self.key_id!r}>"

    def canonical(self) -> bytes:
        """Return the octets that `mac` is computed of: each field behind its length, which is written in 8 octets.

        The fields are `hash_algorithm`, `key_algorithm`, `method`, `key_id`, `params`, `echo` (in UTF-8), `data` or
        `hash` as a word, and the octets of that.
        """
        what, octets = ("data", self.data) if self.data is not None else ("hash", self.hash or b"")
        texts = (
            self.hash_algorithm,
            self.key_algorithm,
            self.method,
            self.key_id,
            self.params,
            self.echo,
            what,
        )
        fields = [*[text.encode() for text in texts], octets]
        return b"".join([len(field).to_bytes(8) + field for field in fields])

    def with_mac(self, secret: Secret) -> SignRequest:
        """Return the same request with its `mac`."""
        return self._replace(mac=self._mac(secret))

    def is_authentic(self, secret: str | Secret) -> bool:
        """Tell, on the signing side, whether `mac` was made with `secret`; compares in constant time."""
        return hmac.compare_digest(self.mac, self._mac(Secret(secret)))

    def _mac(self, secret: Secret) -> bytes:
        return hmac.digest(secret.reveal().encode(), self.canonical(), hashlib.sha256)


class SignAnswer(NamedTuple):
    """The answer of a signer that has to return the request's `echo`, too.

    Attributes:
        signature: the signature, or the CMS SignedData.
        echo: the request's `echo`.
    """

    signature: bytes
    echo: str = ""


#: A signer outside of this library: a key in an HSM, a KMS, another process or machine.
AskSigner = Callable[[SignRequest], Awaitable[bytes | SignAnswer]]


class ToSign(NamedTuple):
    """Something that has to be signed.

    Attributes:
        signer: the signer that signs it.
        data: what is signed.
        hash_algorithm: the hash to sign with.
        of_hash: an Ed25519 key signs the hash of `data` as if that were the message (RFC 8463), not `data` itself.
    """

    signer: Signer
    data: bytes
    hash_algorithm: HashAlgorithm = "sha256"
    of_hash: bool = False

    def hash(self) -> bytes:
        """Return the hash of `data`."""
        # `hashlib.new` looks the name up anew each time.
        make: Callable[[bytes], Any] = getattr(hashlib, self.hash_algorithm)
        digest: bytes = make(self.data).digest()
        return digest


@runtime_checkable
class LocalSigner(Protocol):
    """A key that this process can use.

    Attributes:
        key_algorithm: its kind.
        quick: a signature takes so little time that the event loop can wait for it.
    """

    key_algorithm: KeyAlgorithm
    quick: bool

    def sign(self, wanted: ToSign) -> bytes:
        """Return the signature; may block.

        Raises:
            SigningError: the key does not sign this.
        """


@runtime_checkable
class RemoteSigner(Protocol):
    """A key that must be asked for, and awaited."""

    @property
    def key_algorithm(self) -> KeyAlgorithm:
        """Its kind."""

    @property
    def hash_algorithm(self) -> HashAlgorithm | None:
        """The hash that it signs with, None if any will do."""

    @property
    def method(self) -> Method:
        """What it returns."""

    @property
    def timeout(self) -> float:
        """Seconds that it has for one signature."""

    @property
    def ask(self) -> AskSigner:
        """What is awaited."""

    def request(self, wanted: ToSign) -> SignRequest:
        """Return what to ask."""

    def accepted(self, wanted: ToSign, request: SignRequest, answer: object) -> bytes:
        """Return the signature in `answer`.

        Raises:
            SigningError: there is none, or it is not one of this request.
        """


Signer = LocalSigner | RemoteSigner


def is_remote(signer: Signer) -> TypeGuard[RemoteSigner]:
    """Tell whether a signer must be awaited. The check of a protocol with all its members would take microseconds."""
    return hasattr(signer, "ask")


class Rewritten(NamedTuple):
    """What becomes of a message that is signed: octets around what is kept of it.

    Attributes:
        before: octets in front of it.
        start: where what is kept begins: 0 keeps the whole message, the length of the header its body, None nothing.
        after: octets behind it.
    """

    before: bytes
    start: int | None = 0
    after: bytes = b""


class Signing(Protocol):
    """The signing of one message."""

    def feed(self, data: bytes) -> None:
        """Take the next octets behind the header. Every line ends with CRLF, the last one included; a CR and its LF
        may come in two calls.
        """

    def end(self) -> Sequence[ToSign]:
        """Take the end of the message, and return what is to be signed."""

    def finish(self, signatures: Sequence[bytes]) -> Rewritten:
        """Return what becomes of the message.

        Args:
            signatures: in the order of what `end` returned.

        Raises:
            SigningError: one of them is none.
        """


class MessageSigner(Protocol):
    """A way of signing messages, with everything it takes; the same object signs any number of them.

    Attributes:
        prepends: it only adds fields in front of the header, so that the next one can be given the same octets. Others
            rebuild the message, which may take so long that their `finish` is called in a thread.
        unless_signed: it leaves a message alone that it has signed before, so it may be given the same message twice.
    """

    @property
    def prepends(self) -> bool:
        """Whether it only adds fields in front of the header."""

    @property
    def unless_signed(self) -> bool:
        """Whether it leaves a message alone that it has signed before."""

    def begin(self, header: bytes, now: float) -> Signing | None:
        """Begin to sign a message; None if this message is not one to be signed by this one.

        Args:
            header: its header, up to and including the empty line.
            now: seconds since the epoch.

        Raises:
            SigningError: the header cannot be signed.
        """


def signers_of(given: MessageSigner | Sequence[MessageSigner]) -> tuple[MessageSigner, ...]:
    """Return what a caller gave as `sign`, one way of signing or several, as a tuple.

    Raises:
        InvalidArgument: one of them is no way of signing.
    """
    found: tuple[Any, ...] = tuple(given) if isinstance(given, Iterable) else (given,)
    for one in found:
        if not hasattr(one, "begin"):
            raise InvalidArgument(f"sign takes a DKIM or another way of signing messages, not {one!r}")
    return found
