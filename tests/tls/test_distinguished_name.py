"""Distinguished names, as people write them."""

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.tls.distinguished_name import is_part_of_subject, is_subject
from tests.tls.identities import ANN, issue, key

KEY = key("ec", 0)


def of(*pairs):
    """Return a certificate for a name of these OIDs and values."""
    holder = x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])
    return issue(KEY, holder, holder, KEY)


@pytest.mark.parametrize(
    ("written", "pairs"),
    [
        ("CN=ann", [(NameOID.COMMON_NAME, "ann")]),
        ("  cn =  ANN ", [(NameOID.COMMON_NAME, "ann")]),
        ('CN="Example, Inc."', [(NameOID.COMMON_NAME, "Example, Inc.")]),
        (r"CN=Example\, Inc.", [(NameOID.COMMON_NAME, "Example, Inc.")]),
        (r"CN=Example\2C Inc.", [(NameOID.COMMON_NAME, "Example, Inc.")]),
        (r'CN="say \"hi\""', [(NameOID.COMMON_NAME, 'say "hi"')]),
        (r"CN=B\C3\BCcher", [(NameOID.COMMON_NAME, "Bücher")]),
        ("CN=STRASSE", [(NameOID.COMMON_NAME, "Straße")]),
        ("CN=a+b", [(NameOID.COMMON_NAME, "a+b")]),
        ("CN=a=b", [(NameOID.COMMON_NAME, "a=b")]),
        (
            "CN=ann+E=ann@example.com",
            [(NameOID.COMMON_NAME, "ann"), (NameOID.EMAIL_ADDRESS, "ann@example.com")],
        ),
        ("emailAddress=ann@example.com", [(NameOID.EMAIL_ADDRESS, "ann@example.com")]),
        ("1.2.840.113549.1.9.1=ann@example.com", [(NameOID.EMAIL_ADDRESS, "ann@example.com")]),
        ("ST=Land, C=DE", [(NameOID.COUNTRY_NAME, "DE"), (NameOID.STATE_OR_PROVINCE_NAME, "Land")]),
        ("DC=example,DC=com", [(NameOID.DOMAIN_COMPONENT, "com"), (NameOID.DOMAIN_COMPONENT, "example")]),
        ("givenName=Ann, surname=Example", [(NameOID.GIVEN_NAME, "Ann"), (NameOID.SURNAME, "Example")]),
        ("2.5.4.17=12345", [(NameOID.POSTAL_CODE, "12345")]),
        ("CN=ann,", [(NameOID.COMMON_NAME, "ann")]),
    ],
)
def test_the_subject_itself(written, pairs):
    assert is_subject(written, of(*pairs))


@pytest.mark.parametrize(
    "written",
    ["", "ann", "CN=ann", "CN=ann, CN=ann", "CN=ann, O=Example", "O=ann", "CN=ann x", ",CN=ann", "*"],
)
def test_another_subject(written):
    assert not is_subject(written, of((NameOID.COMMON_NAME, "ann"), (NameOID.ORGANIZATION_NAME, "Other")))


def test_an_empty_name_is_the_same_as_no_other():
    assert is_subject("", of())
    assert not is_subject("", ANN)


@pytest.mark.parametrize(
    "part",
    [
        'O="Example, Inc."',
        r"O=Example\, Inc.",
        "CN=ann,",
        "e=ann@",
        "OU=Mail, CN=ann",
        "CN=ann, OU=Mail",
        "land",
    ],
)
def test_a_part_of_a_name(part):
    assert is_part_of_subject(part, ANN)


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_none(text):
    assert is_subject(text, ANN) in (True, False)
    assert is_part_of_subject(text, ANN) in (True, False)


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=15).filter(str.strip))
def test_whatever_a_name_holds_can_be_written(value):
    certificate = of((NameOID.COMMON_NAME, value), (NameOID.LOCALITY_NAME, "Town"))
    assert is_subject(certificate.x509.subject.rfc4514_string(), certificate)
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    assert is_subject(f'L=Town, CN="{quoted}"', certificate)


def test_a_hostile_name_takes_no_time():
    for text in ("CN=" + '"' * 50_000, "CN=" + "\\" * 50_000, "CN=" + "+A" * 50_000, "CN=a," * 20_000):
        assert not is_subject(text, ANN)
