"""How TLS is spoken, as an application says it; checked when it is said."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from ..errors import FeatureUnavailable, InvalidArgument
from .offers import (
    TLSProfile,
    can_use_shared_keys,
    read_ciphers,
    read_groups,
    read_key_shares,
    read_schemes,
)
from .trust import TrustOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .certificate import Certificate
    from .identity import Identity
    from .trust import AuthenticateServer

__all__ = ["PreSharedKey", "TLSOptions"]

#: The versions that OpenSSL 3 speaks, the oldest first.
_VERSIONS: Final = (
    ssl.TLSVersion.TLSv1,
    ssl.TLSVersion.TLSv1_1,
    ssl.TLSVersion.TLSv1_2,
    ssl.TLSVersion.TLSv1_3,
)
#: What is no part of an `ssl.SSLContext`, and goes together with one of the application's.
_BESIDE_A_CONTEXT: Final = frozenset(
    {
        "context",
        "server_hostname",
        "authenticate_server",
        "session_reuse",
        "resume_across_hosts",
        "expect_close_notify",
        "prng_seed",
        "log_handshake",
    }
)
#: No cipher has longer keys.
_MOST_BITS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class PreSharedKey:
    """A key that both sides have known before, RFC 4279 and RFC 8446 section 2.2.

    Attributes:
        identity: the name by which the server finds the key; it is sent in clear.
        key: the key itself; it never shows.

    Raises:
        InvalidArgument: one of them is empty, or too long for TLS.
    """

    identity: str
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not self.identity or len(self.identity.encode()) > 256 or "\0" in self.identity:
            raise InvalidArgument("the identity of a pre-shared key has 1 to 256 octets, none of them NUL")
        if not self.key or len(self.key) > 256:
            raise InvalidArgument("a pre-shared key has 1 to 256 octets")


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSOptions:
    """How TLS is spoken.

    Attributes:
        context: used as it is, in place of one made from the other options; only `server_hostname`,
            `authenticate_server`, `session_reuse`, `resume_across_hosts`, `expect_close_notify`, `prng_seed` and
            `log_handshake` go together with one. Nothing in it is changed except `sslobject_class`, so that a failed
            handshake can tell what the server's certificate contained. OPPORTUNISTIC takes its trusted certificates
            only.
        profile: what is offered where the options below are None.
        minimum_version, maximum_version: the versions that are spoken. TLS 1.0 and 1.1 are broken (RFC 8996); who names
            them as minimum gets the suites and keys of that time as well.
        ciphers: a cipher list of OpenSSL's, or suites as IANA names them, in one text or one by one. The suites of
            TLS 1.3 stay as they are unless at least one is named; if only such are named, nothing older is spoken.
            Before Python 3.15 a suite of TLS 1.3 that is not named is refused after the handshake.
        minimum_bits: shortest key of the cipher, in bits.
        groups: groups for the key exchange, as IANA names them, the best first. Before Python 3.15 one at most.
        key_share_groups: those of them for which a key is sent with the first message of TLS 1.3, so that a server that
            takes one spares a round trip; by default the first one. Others need Python 3.15 with OpenSSL 3.5.
        signature_algorithms: what the server may sign the handshake with, as IANA names it, and by hash and kind of key
            its issuer the certificate. Anything else is refused, before Python 3.15 after the handshake.
        ffdhe: agree on keys with Diffie-Hellman over finite fields, too. With False, a group of that kind in TLS 1.3 is
            refused after the handshake.
        extended_master_secret: offer that extension up to TLS 1.2 (RFC 7627).
        legacy_renegotiation: speak to servers without secure renegotiation (RFC 5746): who is on the way can put bytes
            of his own before ours.
        renegotiation: let the server ask for a new handshake within a connection, up to TLS 1.2.
        server_hostname: the name that the server's certificate must contain and that is sent as SNI, where it
            is not the host that is connected to.
        trust: which certificates are trusted, and what else decides about a server.
        authenticate_server: a function, async or not, that is asked about each server after the handshake and before
            the first byte of SMTP: True takes it, False refuses it, None has no opinion. It can overturn every verdict
            except that of `blocked` and `pins`; with a context of the application it can only refuse. What it raises
            ends the connection, and so does any other answer. Its time counts as the handshake's.
        identity: who this side is, for servers that ask for a certificate.
        extra_chain: certificates that are sent after those of the identity.
        include_chain: send the certificates that lead from the identity's to an authority. False leaves them out, for
            servers that know them; OpenSSL still adds issuers that are among the trusted certificates.
        psk: a key that the server knows, too; needs Python 3.13. Without `ciphers`, suites for such keys are offered.
        session_reuse: let connections after the first go on with the TLS session of an earlier one, if that was
            verified. It spares the server's certificate and signature, and with TLS 1.2 a round trip; whoever watches
            can tell that it is the same client (RFC 8446 appendix C.4).
        resume_across_hosts: let clients of this thread with equal options, or with the same `context`, go on with each
            other's sessions, also with another host or port, where the name that is verified is the same: for servers
            that share their certificate and the keys of their tickets (RFC 8446 section 4.6.1).
        expect_close_notify: behind QUIT, wait for the server's farewell to TLS (close_notify, RFC 8446 section 6.1),
            2 s at most, and tell of a server that ends TLS without one, as `ConnectionStatus` TLS_BROKEN. False closes
            at once. No message depends on it: what was answered was answered before.
        key_log: a file to which the secrets of each connection are appended, for Wireshark and the like.
        log_handshake: tell of each message of the handshake, as `SSLStatus`.
        prng_seed: added to OpenSSL's random numbers; they are as good without it.

    Raises:
        InvalidArgument: options contradict each other, or a name or number is none.
        TLSLibraryError: OpenSSL finds no suite among the ciphers.
        FeatureUnavailable: this Python or its OpenSSL cannot do it; `needs` says what can.
    """

    context: ssl.SSLContext | None = None
    profile: TLSProfile = TLSProfile.DEFAULT
    minimum_version: ssl.TLSVersion | None = None
    maximum_version: ssl.TLSVersion | None = None
    ciphers: str | Sequence[str] | None = None
    minimum_bits: int = 0
    groups: Sequence[str] = ()
    key_share_groups: Sequence[str] = ()
    signature_algorithms: Sequence[str] = ()
    ffdhe: bool = True
    extended_master_secret: bool = True
    legacy_renegotiation: bool = False
    renegotiation: bool = False
    server_hostname: str | None = None
    trust: TrustOptions = TrustOptions()
    authenticate_server: AuthenticateServer | None = None
    identity: Identity | None = None
    extra_chain: Sequence[Certificate] = ()
    include_chain: bool = True
    psk: PreSharedKey | None = None
    session_reuse: bool = True
    resume_across_hosts: bool = False
    expect_close_notify: bool = True
    key_log: str | os.PathLike[str] | None = None
    log_handshake: bool = False
    prng_seed: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        for name in ("groups", "key_share_groups", "signature_algorithms", "extra_chain"):
            if isinstance(getattr(self, name), str):
                raise InvalidArgument(f"{name} is a sequence, not a text")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.context is not None:
            self._check_beside_a_context()
        self._check_versions()
        self._check_suites()
        groups = read_groups(self.groups)
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "key_share_groups", read_key_shares(self.key_share_groups, groups))
        object.__setattr__(self, "signature_algorithms", read_schemes(self.signature_algorithms))
        self._check_who_we_are()

    @property
    def needs_own_context(self) -> bool:
        """Does anything differ from the default that is part of an `ssl.SSLContext`?"""
        changed = any(
            getattr(self, one.name) != one.default for one in _in_a_context() if one.name != "trust"
        )
        return changed or not self.trust.only_system

    @property
    def judged_after_handshake(self) -> bool:
        """Is the chain judged after the handshake, because OpenSSL cannot do what is wanted?"""
        policy = self.authenticate_server is not None and self.context is None
        return policy or self.trust.after_handshake

    @property
    def in_a_context(self) -> tuple[object, ...]:
        """What an `ssl.SSLContext` is made from."""
        return tuple(getattr(self, one.name) for one in _in_a_context())

    def _check_beside_a_context(self) -> None:
        for one in _in_a_context():
            if getattr(self, one.name) != one.default:
                raise InvalidArgument(
                    f"either a context or {one.name}: set in the context what you want it to do"
                )

    def _check_versions(self) -> None:
        for version in (self.minimum_version, self.maximum_version):
            if version is not None and version not in _VERSIONS:
                raise FeatureUnavailable(
                    f"TLS versions are TLSv1 to TLSv1_3 of ssl.TLSVersion, not {version!r}",
                    needs="another TLS library",
                )
        if self.maximum_version is not None and (self.minimum_version or _VERSIONS[2]) > self.maximum_version:
            raise InvalidArgument(
                "the oldest version that is spoken is newer than the newest one: set minimum_version, too, to "
                "maximum_version or an older one"
            )

    def _check_suites(self) -> None:
        if not 0 <= self.minimum_bits <= _MOST_BITS:
            raise InvalidArgument(f"minimum_bits is between 0 and {_MOST_BITS}, not {self.minimum_bits}")
        if self.ciphers is not None and not isinstance(self.ciphers, str):
            object.__setattr__(self, "ciphers", tuple(self.ciphers))
        choice = read_ciphers(self.ciphers)
        newest = self.maximum_version or _VERSIONS[-1]
        if choice.only_tls13 and newest < ssl.TLSVersion.TLSv1_3:
            raise InvalidArgument("only suites of TLS 1.3 are named, and maximum_version excludes it")

    def _check_who_we_are(self) -> None:
        if self.identity is None and self.extra_chain:
            raise InvalidArgument("extra_chain is sent after the certificate of an identity: give that, too")
        if self.extra_chain and not self.include_chain:
            raise InvalidArgument("include_chain=False sends no extra_chain: leave one of them out")
        if self.identity is not None:
            self.identity.require_local_key()
        if self.psk is not None and not can_use_shared_keys():
            raise FeatureUnavailable("this Python cannot use pre-shared keys", needs="Python 3.13")


def _in_a_context() -> Iterator[Field[Any]]:
    return (one for one in fields(TLSOptions) if one.name not in _BESIDE_A_CONTEXT)
