"""constraints.py: which names an authority may issue for. What OpenSSL says of them is compared in test_agreement."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from smtp_async.tls.constraints import violation
from tests.tls.authority import make

DNS, MAIL, URI = x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier
OTHER = x509.OtherName(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


def network(text: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_network(text))


def directory(*values: tuple[x509.ObjectIdentifier, str]) -> x509.DirectoryName:
    return x509.DirectoryName(x509.Name([x509.NameAttribute(oid, value) for oid, value in values]))


def judged(
    names: Sequence[str | x509.GeneralName],
    permitted: Sequence[x509.GeneralName] = (),
    excluded: Sequence[x509.GeneralName] = (),
) -> str | None:
    limits = x509.NameConstraints(permitted or None, excluded or None)
    issuer = make("Authority", ca=True, constraints=limits)
    return violation(make("Server", issuer, names=names).certificate, issuer.certificate)


def test_an_authority_without_constraints_may_issue_for_anybody() -> None:
    issuer = make("Authority", ca=True)
    assert violation(make("Server", issuer).certificate, issuer.certificate) is None


@pytest.mark.parametrize(
    ("name", "subtree", "inside"),
    [
        (DNS("mail.example"), DNS("example"), True),
        (DNS("mail.example"), DNS("mail.EXAMPLE"), True),
        (DNS("mail.example"), DNS(".example"), True),
        (DNS("example"), DNS(".example"), False),
        (DNS("badexample"), DNS("example"), False),
        (DNS("*.mail.example"), DNS("mail.example"), True),
        (DNS("mail.example"), DNS(""), True),
        (x509.IPAddress(ipaddress.ip_address("192.0.2.7")), network("192.0.2.0/24"), True),
        (x509.IPAddress(ipaddress.ip_address("192.0.3.7")), network("192.0.2.0/24"), False),
        (x509.IPAddress(ipaddress.ip_address("2001:db8::7")), network("192.0.2.0/24"), False),
        (MAIL("ann@mail.example"), MAIL("mail.example"), True),
        (MAIL("ann@a.mail.example"), MAIL("mail.example"), False),
        (MAIL("ann@a.mail.example"), MAIL(".mail.example"), True),
        (MAIL("ann@mail.example"), MAIL("ann@MAIL.example"), True),
        (MAIL("Ann@mail.example"), MAIL("ann@mail.example"), False),
        (URI("https://www.example:8/x"), URI("www.example"), True),
        (URI("https://www.example/"), URI(".example"), True),
        (URI("https://[/"), URI("www.example"), False),
        (
            directory((NameOID.ORGANIZATION_NAME, "Lab  X")),
            directory((NameOID.ORGANIZATION_NAME, "lab x")),
            True,
        ),
        (directory((NameOID.ORGANIZATION_NAME, "Lab")), directory((NameOID.ORGANIZATION_NAME, "Bal")), False),
    ],
)
def test_kinds_of_names(name: x509.GeneralName, subtree: x509.GeneralName, inside: bool) -> None:
    # The subject is a directory name, and permitted or not itself.
    more = [directory((NameOID.COMMON_NAME, "Server"))] if isinstance(subtree, x509.DirectoryName) else []
    assert (judged([name], [subtree, *more]) is None) is inside
    assert (judged([name], [], [subtree]) is None) is not inside


def test_the_name_is_told() -> None:
    assert judged(["mail.example", "other.test"], [DNS("example")]) == "other.test"
    assert judged([], [directory((NameOID.COMMON_NAME, "X"))]) == "CN=Server"


def test_a_kind_that_is_not_limited_is_free() -> None:
    assert judged([MAIL("ann@other.test"), "192.0.2.1"], [DNS("example")]) is None


def test_a_kind_that_cannot_be_compared_is_refused_where_it_is_limited() -> None:
    assert judged([OTHER], [OTHER]) is not None
    assert judged([OTHER], [], [OTHER]) is not None
    assert judged([OTHER], [DNS("example")]) is None


def test_the_mail_address_of_a_subject_counts() -> None:
    issuer = make("A", ca=True, constraints=x509.NameConstraints([MAIL("mail.example")], None))
    leaf = make("S", issuer).certificate
    assert violation(leaf, issuer.certificate) is None


def test_too_many_names_to_compare() -> None:
    excluded = [DNS(f"x{number}.example") for number in range(300)]
    assert judged([f"n{number}.example" for number in range(300)], [], excluded) == "301 names"


@pytest.mark.parametrize(
    ("wanted", "refused"),
    [
        ("secret.example.com", True),
        ("SECRET.example.com", True),
        ("open.example.com", False),
        ("192.0.2.1", False),
    ],
)
def test_a_wildcard_does_not_stand_for_an_excluded_name(wanted: str, refused: bool) -> None:
    limits = x509.NameConstraints(None, [DNS("secret.example.com")])
    issuer = make("Authority", ca=True, constraints=limits)
    leaf = make("Server", issuer, names=["*.example.com", "192.0.2.1"])
    found = violation(leaf.certificate, issuer.certificate, wanted)
    assert found == (wanted if refused else None)


def test_an_address_is_no_name_that_may_be_excluded() -> None:
    issuer = make("Authority", ca=True, constraints=x509.NameConstraints(None, [DNS("")]))
    leaf = make("Server", issuer, names=["192.0.2.1"])
    assert violation(leaf.certificate, issuer.certificate, "192.0.2.1") is None
