"""What servers may show, what clients may want, and what must come of it: one table for tests and for the manual."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from smtp_async import ChainProblem, ServerAuthentication
from smtp_async.errors import CertificateRejected, ChainInvalid, ChainNotFound, TLSError
from tests.tls.authority import (
    DAY,
    NOW,
    SERVER,
    Entity,
    intermediate,
    make,
    root,
    rsa_key,
    signed_with_old_hash,
)

P = ChainProblem
NONE = P(0)


@dataclass(frozen=True)
class Case:
    """What a server shows, what the client wants, and what must come of it.

    Attributes:
        shows: makes the server's certificate.
        problems: what must be found.
        error: the class of the error; None if the connection must stand.
        says: a pattern that the error's text must match.
        settings: options of the client's trust; a function of the server's certificate.
        policy: what is asked about the server.
        name: the name that is verified.
        verified: must the server count as verified? None: as there is no error.
    """

    shows: Callable[[], Entity]
    problems: ChainProblem = NONE
    error: type[TLSError] | None = None
    says: str = ""
    settings: Callable[[Entity], dict[str, Any]] = field(default=lambda shown: {})
    policy: Any = None
    name: str = "localhost"
    verified: bool | None = None


def leaf(issuer: Entity | None = None, **kwargs: Any) -> Entity:
    """Return a certificate below the trusted authority."""
    kwargs.setdefault("purposes", SERVER)
    return make("Server", issuer or root(), **kwargs)


def below(issuer: Entity, **kwargs: Any) -> Entity:
    return leaf(issuer, **kwargs).sending(issuer)


def authority(**kwargs: Any) -> Entity:
    return make("Authority", root(), ca=True, end=kwargs.pop("end", NOW + 100 * DAY), **kwargs)


def below_old(*, md5: bool = False, forged: bool = False) -> Entity:
    issuer = authority(key=rsa_key(2048))
    signer = issuer._replace(key=rsa_key(2047)) if forged else issuer
    signed = signed_with_old_hash(leaf(issuer), signer, md5=md5)
    return signed.sending(issuer)


def forged() -> Entity:
    """Return a certificate that names the trusted authority, and its key, but was signed with another."""
    return leaf(signer=make("Root", ca=True).key)


def circle() -> Entity:
    one, two = make("One", ca=True), make("Two", ca=True)
    a = make("One", two, ca=True, key=one.key)
    b = make("Two", a, ca=True, key=two.key)
    return make("Server", a, purposes=SERVER).sending(a, b)


def one_too_deep() -> Entity:
    first = authority(path_length=0)
    second = make("Second", first, ca=True)
    return leaf(second).sending(second, first)


def refuse(question: ServerAuthentication) -> bool:
    return False


async def accept(question: ServerAuthentication) -> bool:
    await asyncio.sleep(0)
    return True


def no_opinion(question: ServerAuthentication) -> None:
    return None


def fail(question: ServerAuthentication) -> bool:
    raise ZeroDivisionError("the policy is broken")


def mail_only() -> x509.NameConstraints:
    return x509.NameConstraints([x509.DNSName("mail.example")], None)


def unknown_extension() -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True


UNTRUSTED = make("Untrusted", ca=True)

#: Without settings that OpenSSL does not know: OpenSSL and this library must find the same.
PLAIN = {
    "good": Case(lambda: below(intermediate())),
    "below the root": Case(leaf),
    "surplus and disorder": Case(lambda: leaf(intermediate()).sending(UNTRUSTED, root(), intermediate())),
    "address": Case(leaf, name="127.0.0.1"),
    "international name": Case(lambda: leaf(names=["xn--bcher-kva.example"]), name="bücher.example"),
    "wildcard": Case(lambda: leaf(names=["*.b.example"]), name="a.b.example"),
    "expired": Case(
        lambda: leaf(begin=NOW - 9 * DAY, end=NOW - 3 * DAY), P.EXPIRED, CertificateRejected, r"expired .* 3 days ago"
    ),
    "not yet valid": Case(
        lambda: leaf(begin=NOW + DAY), P.NOT_YET_VALID, CertificateRejected, r"not valid before .* the clock of this"
    ),
    "wrong host": Case(
        lambda: leaf(names=["other.example", "*.example.org"]),
        P.HOST_NAME,
        CertificateRejected,
        r"is for other\.example, \*\.example\.org, not for localhost: .*TLSOptions\.server_hostname",
    ),
    "wildcard two deep": Case(
        lambda: leaf(names=["*.example.com"]),
        P.HOST_NAME,
        CertificateRejected,
        r"is for \*\.example\.com, not for a\.b\.example\.com",
        name="a.b.example.com",
    ),
    "common name only": Case(
        lambda: make("localhost", root(), names=None, purposes=SERVER),
        P.HOST_NAME,
        CertificateRejected,
        r"names no host, so it is not for localhost \(its subject, CN=localhost, does not count\)",
    ),
    "address as host name": Case(
        lambda: leaf(names=[x509.DNSName("127.0.0.1")]),
        P.HOST_NAME,
        CertificateRejected,
        r"is for 127\.0\.0\.1, not for 127\.0\.0\.1",
        name="127.0.0.1",
    ),
    "another international name": Case(
        lambda: leaf(names=["xn--bcher-kva.example"]),
        P.HOST_NAME,
        CertificateRejected,
        r"is for xn--bcher-kva\.example, not for xn--bchse-kva\.example",
        name="büchse.example",
    ),
    "self-signed": Case(
        lambda: make("Self", purposes=SERVER),
        P.UNKNOWN_AUTHORITY,
        ChainNotFound,
        r"is self-signed \(CN=Self\) and not trusted: .*TrustOptions\(ca_file=…\)",
    ),
    "unknown authority": Case(
        lambda: leaf(UNTRUSTED), P.UNKNOWN_AUTHORITY, ChainNotFound, r"the issuer CN=Untrusted of .* is not known"
    ),
    "unknown authority that is sent": Case(
        lambda: below(UNTRUSTED), P.UNKNOWN_AUTHORITY, ChainNotFound, r"ends with CN=Untrusted, which is not trusted"
    ),
    "missing intermediate": Case(
        lambda: leaf(intermediate()),
        P.UNKNOWN_AUTHORITY,
        ChainNotFound,
        r"the issuer CN=Intermediate .* left out an intermediate certificate",
    ),
    "for clients": Case(
        lambda: leaf(purposes=[ExtendedKeyUsageOID.CLIENT_AUTH]),
        P.USAGE,
        CertificateRejected,
        r"is not for servers, only for CLIENT_AUTH",
    ),
    "key for other things": Case(
        lambda: leaf(usage=["content_commitment"]),
        P.USAGE,
        CertificateRejected,
        r"may not be used for TLS, only for NON_REPUDIATION",
    ),
    "weak key": Case(
        lambda: leaf(key=rsa_key(1024)), P.WEAK, ChainInvalid, r"is too weak: RSA of 1024 bits, and 112 bits"
    ),
    "weak key of an authority": Case(
        lambda: below(authority(key=rsa_key(1024))),
        P.WEAK,
        ChainInvalid,
        r"the key of the issuer certificate CN=Authority is too weak",
    ),
    "SHA-1": Case(
        lambda: below_old(),
        P.WEAK,
        ChainInvalid,
        r"the certificate of .* is signed with RSA_WITH_SHA1, which can be forged",
    ),
    "MD5": Case(
        lambda: below_old(md5=True), P.WEAK, ChainInvalid, r"is signed with RSA_WITH_MD5, which can be forged"
    ),
    "SHA-1, and forged": Case(
        lambda: below_old(forged=True), P.WEAK | P.INVALID_SIGNATURE, ChainInvalid, r"was not signed with the key"
    ),
    "broken chain": Case(
        forged, P.INVALID_SIGNATURE, ChainInvalid, r"was not signed with the key of CN=Root: it was changed"
    ),
    "intermediate expired": Case(
        lambda: below(authority(begin=NOW - 9 * DAY, end=NOW - DAY)),
        P.EXPIRED,
        CertificateRejected,
        r"the issuer certificate CN=Authority expired on .* 1 day ago",
    ),
    "name constraints": Case(
        lambda: below(authority(constraints=mail_only())),
        P.NAME_CONSTRAINTS,
        ChainInvalid,
        r"the authority CN=Authority may not issue for 'localhost'",
    ),
    "path length": Case(
        lambda: one_too_deep(),
        P.NOT_AUTHORIZED,
        ChainInvalid,
        r"CN=Authority allows 0 authorities below it, and there is one",
    ),
    "issuer that is no authority": Case(
        lambda: below(leaf()), P.NOT_AUTHORIZED, ChainInvalid, r"CN=Server is no authority and may not issue"
    ),
    "unknown critical extension": Case(
        lambda: leaf(others=[unknown_extension()]),
        P.UNKNOWN_EXTENSION,
        ChainInvalid,
        r"demands that its extension 1\.3\.6\.1\.4\.1\.99999\.1 is understood",
    ),
    "circle": Case(
        circle, P.LOOP | P.UNKNOWN_AUTHORITY, ChainInvalid, r"have issued each other in a circle; the issuer"
    ),
    "everything at once": Case(
        lambda: leaf(
            UNTRUSTED,
            begin=NOW - 9 * DAY,
            end=NOW - DAY,
            names=["other.example"],
            purposes=[ExtendedKeyUsageOID.CLIENT_AUTH],
            key=rsa_key(1024),
        ),
        P.UNKNOWN_AUTHORITY | P.EXPIRED | P.HOST_NAME | P.USAGE | P.WEAK,
        ChainNotFound,
        r"CN=Untrusted .* is not known.*; .* expired on .*; .* is for other\.example.*; .* not for servers.*; .* weak",
    ),
}  # fmt: skip


def wrong_everything() -> Entity:
    return make("Self", names=["other.example"], begin=NOW - 9 * DAY, end=NOW - DAY)


#: What OpenSSL cannot do.
BEYOND_OPENSSL = {
    "blocked": Case(
        leaf,
        P.BLOCKED,
        CertificateRejected,
        r"shows the certificate CN=Server \([0-9a-f]{64}\), which TrustOptions\.blocked forbids",
        settings=lambda shown: {"blocked": [shown.certificate]},
    ),
    "authority blocked by its key": Case(
        lambda: below(intermediate()),
        P.BLOCKED,
        CertificateRejected,
        r"shows the certificate CN=Intermediate ",
        settings=lambda shown: {"blocked": [make("X", key=intermediate().key).certificate]},
    ),
    "blocked although accepted otherwise": Case(
        wrong_everything,
        P.BLOCKED,
        CertificateRejected,
        r"TrustOptions\.blocked forbids",
        settings=lambda shown: {"blocked": [shown.certificate], "accepted": [shown.certificate]},
        policy=accept,
    ),
    "blocked without validation": Case(
        wrong_everything,
        P.BLOCKED,
        CertificateRejected,
        r"TrustOptions\.blocked forbids",
        settings=lambda shown: {"blocked": [shown.certificate], "validate": False},
    ),
    "pinned": Case(leaf, settings=lambda shown: {"pins": [shown.certificate.sha256]}),
    "pinned by the key of an authority": Case(
        lambda: below(intermediate()),
        settings=lambda shown: {"pins": [intermediate().certificate.public_key_sha256, "00" * 32]},
    ),
    "pinned to another": Case(
        leaf,
        P.PIN,
        CertificateRejected,
        r"no certificate in the chain of .* has one of the pins, the server's have [0-9a-f]{64} \(certificate\) and "
        r"[0-9a-f]{64} \(key\): .*TrustOptions\(pins=…\)",
        settings=lambda shown: {"pins": [UNTRUSTED.certificate.sha256]},
    ),
    "pinned to one that is only sent along": Case(
        lambda: leaf().sending(UNTRUSTED),
        P.PIN,
        CertificateRejected,
        r"has one of the pins",
        settings=lambda shown: {"pins": [UNTRUSTED.certificate.sha256]},
    ),
    "a pin is no trust": Case(
        lambda: leaf(UNTRUSTED),
        P.UNKNOWN_AUTHORITY,
        ChainNotFound,
        r"is not known",
        settings=lambda shown: {"pins": [shown.certificate.sha256]},
    ),
    "a policy cannot overturn a pin": Case(
        leaf,
        P.PIN,
        CertificateRejected,
        r"has one of the pins",
        settings=lambda shown: {"pins": [UNTRUSTED.certificate.sha256]},
        policy=accept,
    ),
    "pinned but not validated": Case(
        wrong_everything,
        settings=lambda shown: {"validate": False, "pins": [shown.certificate.public_key_sha256]},
        verified=False,
    ),
    "pinned to an authority but not validated": Case(
        lambda: below(intermediate()),
        P.PIN,
        CertificateRejected,
        r"has one of the pins",
        settings=lambda shown: {"validate": False, "pins": [intermediate().certificate.sha256]},
    ),
    "accepted": Case(wrong_everything, settings=lambda shown: {"accepted": [shown.certificate]}),
    "another one accepted": Case(
        leaf, settings=lambda shown: {"accepted": [UNTRUSTED.certificate]}
    ),
    "time ignored": Case(
        lambda: leaf(begin=NOW - 9 * DAY, end=NOW - DAY),
        P.EXPIRED,
        settings=lambda shown: {"ignore": P.TIME},
        verified=False,
    ),
    "name ignored": Case(
        lambda: leaf(names=["other.example"]),
        P.HOST_NAME,
        settings=lambda shown: {"ignore": P.HOST_NAME},
        verified=False,
    ),
    "authority ignored": Case(
        lambda: below(UNTRUSTED),
        P.UNKNOWN_AUTHORITY,
        settings=lambda shown: {"ignore": P.UNKNOWN_AUTHORITY},
        verified=False,
    ),
    "usage ignored": Case(
        lambda: leaf(purposes=[ExtendedKeyUsageOID.CLIENT_AUTH]),
        P.USAGE,
        settings=lambda shown: {"ignore": P.USAGE},
        verified=False,
    ),
    "another problem ignored": Case(
        lambda: leaf(names=["other.example"], begin=NOW - 9 * DAY, end=NOW - DAY),
        P.HOST_NAME | P.EXPIRED,
        CertificateRejected,
        r"is for other\.example",
        settings=lambda shown: {"ignore": P.TIME},
    ),
    "forged although the authority is ignored": Case(
        forged,
        P.INVALID_SIGNATURE,
        ChainInvalid,
        r"was not signed",
        settings=lambda shown: {"ignore": P.UNKNOWN_AUTHORITY},
    ),
    "known": Case(
        lambda: leaf(intermediate()), settings=lambda shown: {"known": [intermediate().certificate]}
    ),
    "known is not trusted": Case(
        lambda: leaf(UNTRUSTED),
        P.UNKNOWN_AUTHORITY,
        ChainNotFound,
        r"ends with CN=Untrusted",
        settings=lambda shown: {"known": [UNTRUSTED.certificate]},
    ),
    "not validated": Case(wrong_everything, settings=lambda shown: {"validate": False}, verified=False),
    "refused by the policy": Case(
        leaf, P.REFUSED, CertificateRejected, r"authenticate_server refused the certificate of", policy=refuse
    ),
    "accepted by the policy": Case(
        wrong_everything,
        P.UNKNOWN_AUTHORITY | P.EXPIRED | P.HOST_NAME,
        policy=accept,
        verified=False,
    ),
    "policy without opinion": Case(leaf, policy=no_opinion),
    "policy without opinion on a bad server": Case(
        lambda: leaf(names=["other.example"]),
        P.HOST_NAME,
        CertificateRejected,
        r"is for other\.example",
        policy=no_opinion,
    ),
    "policy that fails": Case(
        leaf,
        NONE,
        CertificateRejected,
        r"authenticate_server failed for .*: ZeroDivisionError: the policy is broken",
        policy=fail,
    ),
    "too long a value": Case(
        leaf, P.BAD_DATA, ChainInvalid, r"cannot be read: a value of \d+ bytes, of 20 at most",
        settings=lambda shown: {"max_asn1_length": 20},
    ),
    "too deep": Case(
        leaf, P.BAD_DATA, ChainInvalid, r"cannot be read: values nested more than 3 deep",
        settings=lambda shown: {"max_asn1_depth": 3},
    ),
}  # fmt: skip
CASES = PLAIN | BEYOND_OPENSSL
