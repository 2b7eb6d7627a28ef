"""dkim.py: which fields are signed and how, against the examples of RFC 8463, and against what dkimpy verifies."""

import base64
import re
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidArgument, SigningError
from smtp_async.message.body_hash import BodyHash
from smtp_async.message.dkim import (
    ALWAYS,
    DKIM,
    MOST_PLANS,
    SIGNED,
    folded,
    header_lines,
    plan_of,
    relaxed_field,
    relaxed_fields,
)
from smtp_async.message.dkim_record import dkim_record
from smtp_async.message.header_parser import fields_of
from smtp_async.message.sign import ExternalSigner, KeySigner
from smtp_async.model.signing import Rewritten, ToSign

RSA = rsa.generate_private_key(65537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()
NOW = 1_700_000_000.9

HEADER = (
    b"Received: from a by b\r\nFrom: Ann <ann@example.com>\r\nTO: bob@example.org,\r\n\tcy@example.org\r\n"
    b"Subject:  two   blanks\t\r\nX-Other: not signed\r\nMessage-ID: <1@example.com>\r\n\r\n"
)
BODY = b"Hello,  \r\n \t world\r\n\r\n\r\n"


def signed(signer: DKIM, header: bytes = HEADER, body: bytes = BODY, size: int = 1 << 20) -> bytes:
    """Sign as the driver does, with the key that `signer` has."""
    signing = signer.begin(header, NOW)
    assert signing is not None
    for start in range(0, len(body), size):
        signing.feed(body[start : start + size])
    (wanted,) = signing.end()
    rewritten = signing.finish([KeySigner(signer.key).sign(wanted)])
    assert rewritten == Rewritten(rewritten.before)
    return rewritten.before + header + body


def verified(message: bytes, *signers: DKIM, index: int = 0) -> bool:
    """Ask dkimpy."""
    records = {f"{one.record_name}.".encode(): dkim_record(one.key).encode() for one in signers}
    try:
        return bool(dkim.DKIM(message).verify(idx=index, dnsfunc=lambda name, timeout=5: records.get(name)))
    except dkim.ValidationError:  # the body has another hash
        return False


def tags_of(message: bytes) -> dict[str, str]:
    octets = fields_of(message)[0][0].octets.decode()
    value = re.sub(r"\r\n[ \t]+", "", octets.partition(":")[2]).strip()
    return dict(part.strip().split("=", 1) for part in value.split(";"))


# --- the examples of the RFC -----------------------------------------------------------------------------------

EXAMPLE = (
    b"From: Joe SixPack <joe@football.example.com>\r\nTo: Suzie Q <suzie@shopping.example.net>\r\n"
    b"Subject: Is dinner ready?\r\nDate: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"
    b"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\r\n"
)
EXAMPLE_BODY = b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
EXAMPLE_ED25519 = b"nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
EXAMPLE_RSA = b"""-----BEGIN RSA PRIVATE KEY-----
MIICXQIBAAKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi
Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM
KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB
AoGAH0cxOhFZDgzXWhDhnAJDw5s4roOXN4OhjiXa8W7Y3rhX3FJqmJSPuC8N9vQm
6SVbaLAE4SG5mLMueHlh4KXffEpuLEiNp9Ss3O4YfLiQpbRqE7Tm5SxKjvvQoZZe
zHorimOaChRL2it47iuWxzxSiRMv4c+j70GiWdxXnxe4UoECQQDzJB/0U58W7RZy
6enGVj2kWF732CoWFZWzi1FicudrBFoy63QwcowpoCazKtvZGMNlPWnC7x/6o8Gc
uSe0ga2xAkEA8C7PipPm1/1fTRQvj1o/dDmZp243044ZNyxjg+/OPN0oWCbXIGxy
WvmZbXriOWoSALJTjExEgraHEgnXssuk7QJBALl5ICsYMu6hMxO73gnfNayNgPxd
WFV6Z7ULnKyV7HSVYF0hgYOHjeYe9gaMtiJYoo0zGN+L3AAtNP9huqkWlzECQE1a
licIeVlo1e+qJ6Mgqr0Q7Aa7falZ448ccbSFYEPD6oFxiOl9Y9se9iYHZKKfIcst
o7DUw1/hz2Ck4N5JrgUCQQCyKveNvjzkkd8HjYs0SwM0fPjK16//5qDZ2UiDGnOe
uEzxBDAr518Z8VFbR41in3W4Y3yCDgQlLlcETrS+zYcL
-----END RSA PRIVATE KEY-----
"""
EXAMPLES = {
    "ed25519": (
        EXAMPLE_ED25519,
        b"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n d=football.example.com;"
        b" i=@football.example.com;\r\n q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n subject : date :"
        b" message-id : from : subject : date;\r\n bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=",
        "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==",
    ),
    "rsa": (
        EXAMPLE_RSA,
        b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n d=football.example.com;"
        b" i=@football.example.com;\r\n q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n date :"
        b" message-id : from : subject : date;\r\n bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=",
        "F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeef"
        "Osk2JzdA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=",
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_rfc_8463_are_signed_alike(name: str) -> None:
    key, unsigned, expected = EXAMPLES[name]
    fields = {one.name: one.octets for one in fields_of(EXAMPLE)[0]}
    data = b"".join(relaxed_field(fields[one]) for one in ("from", "to", "subject", "date", "message-id"))
    signature = KeySigner.load(key).sign(
        ToSign(None, data + relaxed_field(unsigned)[:-2], of_hash=name == "ed25519")  # type: ignore[arg-type]
    )
    assert base64.b64encode(signature).decode() == expected


def test_the_body_hash_of_the_examples() -> None:
    for key, selector, _ in (
        (KeySigner.load(EXAMPLE_ED25519), "brisbane", 0),
        (KeySigner.load(EXAMPLE_RSA), "test", 0),
    ):
        signer = DKIM("football.example.com", selector, key, identity="@football.example.com")
        signing = signer.begin(EXAMPLE, 1528637909)
        assert signing is not None
        signing.feed(EXAMPLE_BODY)
        (wanted,) = signing.end()
        message = signing.finish([key.sign(wanted)]).before + EXAMPLE + EXAMPLE_BODY
        tags = tags_of(message)
        assert tags["bh"] == "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="
        assert (tags["t"], tags["i"]) == ("1528637909", "@football.example.com")


# --- what is signed ----------------------------------------------------------------------------------------------


class TestFields:
    def test_each_is_signed_once_more_than_it_is_there(self) -> None:
        names = tags_of(signed(DKIM("example.com", "s", ED25519)))["h"].split(":")
        assert {name: names.count(name) for name in names} == {
            "from": 2, "to": 2, "subject": 2, "message-id": 2,
            "reply-to": 1, "cc": 1, "mime-version": 1, "content-type": 1, "content-transfer-encoding": 1,
        }  # fmt: skip

    @pytest.mark.parametrize("name", ALWAYS)
    def test_none_of_those_that_readers_are_shown_can_be_added(self, name: str) -> None:
        signer = DKIM("example.com", "s", ED25519)
        message = signed(signer)
        assert verified(message, signer)
        assert not verified(f"{name}: x@example.net\r\n".encode() + message, signer)

    @pytest.mark.parametrize("name", [b"Date: now", b"X-Spam: no", b"Return-Path: <a@b>", b"Received: by c"])
    def test_what_servers_add_does_no_harm(self, name: bytes) -> None:
        signer = DKIM("example.com", "s", ED25519)
        assert verified(name + b"\r\n" + signed(signer), signer)

    def test_a_field_that_is_there_twice(self) -> None:
        header = b"To: one@example.org\r\nTo: two@example.org\r\n" + HEADER
        signer = DKIM("example.com", "s", RSA)
        message = signed(signer, header)
        assert tags_of(message)["h"].split(":").count("to") == 4
        assert verified(message, signer)
        swapped = message.replace(b"one@", b"x@").replace(b"two@", b"one@").replace(b"x@", b"two@")
        assert not verified(swapped, signer)

    def test_the_callers_own_choice(self) -> None:
        signer = DKIM("example.com", "s", RSA, sign=["From", "X-Other"], oversign=["X-Missing"])
        message = signed(signer)
        assert tags_of(message)["h"] == "x-missing:from:from:x-other:x-other"
        assert verified(message, signer)

    def test_a_message_without_from_is_refused(self) -> None:
        with pytest.raises(SigningError, match="without From"):
            DKIM("example.com", "s", RSA).begin(b"To: bob@example.org\r\n\r\n", NOW)

    def test_the_usual_names(self) -> None:
        assert set(ALWAYS) <= set(SIGNED)
        assert not {"return-path", "received", "bcc"} & set(SIGNED)


class TestTags:
    def test_time_and_end(self) -> None:
        tags = tags_of(signed(DKIM("example.com", "s", RSA, expires=3600)))
        assert (tags["t"], tags["x"]) == ("1700000000", "1700003600")
        assert "t" not in tags_of(signed(DKIM("example.com", "s", RSA, timestamp=False)))

    def test_there_is_never_a_length(self) -> None:
        assert "l" not in tags_of(signed(DKIM("example.com", "s", RSA)))

    def test_identity(self) -> None:
        for text, written in (
            ("ann@example.com", "ann@example.com"),
            ("@news.example.com", "@news.example.com"),
            ('"a; b=c"@example.com', '"a=3B=20b=3Dc"@example.com'),
            ("jörg@example.com", "j=C3=B6rg@example.com"),
        ):
            signer = DKIM("example.com", "s", RSA, identity=text)
            message = signed(signer)
            assert tags_of(message)["i"] == written
            assert verified(message, signer)

    def test_a_domain_of_another_script(self) -> None:
        assert tags_of(signed(DKIM("bücher.example", "s", RSA)))["d"] == "xn--bcher-kva.example"

    def test_no_line_is_long(self) -> None:
        message = signed(
            DKIM("a" * 60 + ".example", "s" * 60, RSA, identity=f"@{'b' * 60}.{'a' * 60}.example")
        )
        lines = fields_of(message)[0][0].octets.split(b"\r\n")
        assert max(map(len, lines)) < 150 and len([one for one in lines if len(one) > 78]) < 4

    @given(st.lists(st.text("abc=/+", min_size=1, max_size=200), min_size=1, max_size=9))
    def test_folding_changes_no_tag(self, values: list[str]) -> None:
        text = folded("Name:", [f" {value};" for value in values])
        assert text.replace("\r\n\t", " ") == "".join(["Name:", *[f" {value};" for value in values]])
        assert all(len(line) <= 76 or line.count(" ") == 0 for line in text.split("\r\n"))


class TestChoice:
    @pytest.mark.parametrize(
        ("domains", "chosen"),
        [
            (None, True),
            (["example.com"], True),
            (["EXAMPLE.com"], True),
            (["com"], True),
            (["example.org", "example.com"], True),
            (["ample.com"], False),
            (["mail.example.com"], False),
            ([], False),
        ],
    )
    def test_by_the_domain_of_the_author(self, domains: Any, chosen: bool) -> None:
        assert (DKIM("example.com", "s", RSA, only_for=domains).begin(HEADER, NOW) is not None) is chosen

    def test_an_author_that_cannot_be_read(self) -> None:
        with pytest.raises(SigningError, match="no author"):
            DKIM("example.com", "s", RSA, only_for=["example.com"]).begin(b"From: @@\r\n\r\n", NOW)


# --- what dkimpy says --------------------------------------------------------------------------------------------

LINES = st.lists(
    st.binary(max_size=12).map(lambda octets: octets.replace(b"\r", b"").replace(b"\n", b""))
    | st.text(" \t", max_size=4).map(str.encode)
    | st.sampled_from([b"", b" ", b"\t ", b"a  b", b"a \t b ", b"."]),
    max_size=12,
)


@pytest.mark.parametrize("header", ["relaxed", "simple"])
@pytest.mark.parametrize("body", ["relaxed", "simple"])
@pytest.mark.parametrize("key", [RSA, ED25519], ids=["rsa", "ed25519"])
def test_every_canonicalization_is_verified(header: Any, body: Any, key: Any) -> None:
    signer = DKIM("example.com", "s", key, header=header, body=body)
    for text in (BODY, b"", b"\r\n\r\n", b" \r\n", b"one line\r\n"):
        message = signed(signer, body=text)
        assert verified(message, signer)
        assert not verified(message + b"more\r\n", signer)
        assert not verified(message.replace(b"Subject:", b"Subject: x"), signer)


@given(LINES, st.integers(1, 7), st.booleans())
def test_a_body_has_the_hash_that_dkimpy_computes(lines: list[bytes], size: int, relaxed: bool) -> None:
    """In pieces of any size."""
    signer = DKIM("example.com", "s", ED25519, body="relaxed" if relaxed else "simple")
    body = b"".join(line + b"\r\n" for line in lines)
    assert verified(signed(signer, body=body, size=size), signer)


class TestUnlessSigned:
    ONCE = DKIM("example.com", "e", ED25519, unless_signed=True)

    def again(self, message: bytes, signer: DKIM = ONCE) -> bytes | None:
        """Sign a message, and return what is put in front of it; None if nothing had to be signed."""
        header, _, body = message.partition(b"\r\n\r\n")
        signing = signer.begin(header + b"\r\n\r\n", NOW)
        assert signing is not None
        signing.feed(body)
        if wanted := signing.end():
            return signing.finish([KeySigner(signer.key).sign(one) for one in wanted]).before
        assert signing.finish([]) == Rewritten(b"")
        return None

    def test_a_message_that_is_signed_stays_as_it_is(self) -> None:
        message = signed(self.ONCE)
        assert verified(message, self.ONCE) and self.again(message) is None
        # However the field is folded, and wherever it stands.
        folded_anew = message.replace(b"; d=example.com;", b";\r\n d = Example.COM ;", 1)
        assert folded_anew != message and self.again(b"Received: from a by b\r\n" + folded_anew) is None

    @pytest.mark.parametrize(
        "other",
        [
            DKIM("example.com", "f", ED25519),
            DKIM("example.org", "e", ED25519),
            DKIM("example.com", "e", ED25519, body="simple"),
        ],
        ids=["selector", "domain", "canonicalization"],
    )
    def test_other_signatures_do_not_count(self, other: DKIM) -> None:
        assert self.again(signed(other)) is not None

    def test_a_signature_about_another_body_does_not_count(self) -> None:
        changed = signed(self.ONCE) + b"-- \r\nThe mailing list\r\n"
        again = self.again(changed)
        assert again is not None and verified(again + changed, self.ONCE)

    def test_others_sign_again(self) -> None:
        signer = DKIM("example.com", "e", ED25519)
        assert self.again(signed(signer), signer) is not None


def test_two_signatures_stand_side_by_side() -> None:
    first, second = DKIM("example.com", "r", RSA), DKIM("example.org", "e", ED25519)
    one, two = signed(first), signed(second)
    message = one[: one.index(HEADER)] + two
    assert verified(message, first, second, index=0) and verified(message, first, second, index=1)


# --- arguments ---------------------------------------------------------------------------------------------------


async def ask(request: Any) -> bytes:
    return b""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"domain": "no domain"}, "not a domain"),
        ({"domain": None}, "not a domain"),
        ({"selector": ""}, "not a selector"),
        ({"selector": "a;b"}, "not a selector"),
        ({"selector": "-a"}, "not a selector"),
        ({"key": "a path"}, "no key to sign with"),
        ({"key": ec.generate_private_key(ec.SECP256R1())}, "not with ec"),
        ({"key": ExternalSigner(ask=ask, method="pkcs7")}, "pkcs1"),
        ({"key": ExternalSigner(ask=ask, hash_algorithm="sha512")}, "SHA-256"),
        ({"header": "strict"}, "relaxed"),
        ({"body": "strict"}, "relaxed"),
        ({"sign": "from"}, "sequence of texts"),
        ({"sign": ["to"], "oversign": []}, "From is always signed"),
        ({"sign": ["from", "received"]}, "changed on the way"),
        ({"sign": ["from", "dkim-signature"]}, "changed on the way"),
        ({"oversign": ["a b"]}, "not the name"),
        ({"identity": "ann@example.org"}, "or one below it"),
        ({"identity": "ann@notexample.com"}, "or one below it"),
        ({"identity": "ann"}, "or one below it"),
        ({"expires": 0}, "expires"),
        ({"expires": float("nan")}, "expires"),
        ({"only_for": "example.com"}, "sequence of texts"),
        ({"check_record": "yes"}, "check_record"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        DKIM(**{"domain": "example.com", "selector": "s", "key": RSA, **arguments})


def test_a_short_key_is_refused() -> None:
    try:
        short = rsa.generate_private_key(65537, 1024)
    except ValueError:
        pytest.skip("cryptography makes no short keys any more")
    assert DKIM("example.com", "s", short).selector == "s"

    class Short:
        key_algorithm = "rsa"
        quick = False

        class public_key:
            key_size = 512

        def sign(self, wanted: ToSign) -> bytes:
            return b""

    with pytest.raises(InvalidArgument, match="512 bits is too short"):
        DKIM("example.com", "s", Short())


def test_the_key_never_shows() -> None:
    assert repr(DKIM("example.com", "s", RSA)).startswith(
        "DKIM(domain='example.com', selector='s', only_for=None"
    )
    assert "key" not in repr(DKIM("example.com", "s", RSA))


def test_the_signature_must_be_by_the_key_of_the_record() -> None:
    signer = DKIM("example.com", "s", ask)
    signer.remember_record(0, RSA.public_key())
    for key, fits in ((RSA, True), (rsa.generate_private_key(65537, 2048), False)):
        signing = signer.begin(HEADER, NOW)
        assert signing is not None
        (wanted,) = signing.end()
        signature = KeySigner(key).sign(wanted)
        if fits:
            assert signing.finish([signature]).before
        else:
            with pytest.raises(SigningError, match="does not verify with the key of the DNS record"):
                signing.finish([signature])


def test_a_hash_takes_octets_of_any_number() -> None:
    class Count:
        octets = b""

        def update(self, data: bytes) -> None:
            self.octets += data

        def digest(self) -> bytes:
            return self.octets

    assert BodyHash(Count(), relaxed=False).digest() == b"\r\n"


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        # RFC 6376 section 3.4.5.
        (b"A: X\r\n", b"a:X\r\n"),
        (b"B : Y\t\r\n\tZ  \r\n", b"b:Y Z\r\n"),
        (b"Empty:\r\n", b"empty:\r\n"),
        (b"Colons: a:b\r\n", b"colons:a:b\r\n"),
    ],
)
def test_a_relaxed_field(octets: bytes, expected: bytes) -> None:
    assert relaxed_field(octets) == expected


_PIECES = st.sampled_from(
    [
        "From",
        "TO",
        "Subject",
        ":",
        ": ",
        " :",
        " ",
        "  ",
        "\t",
        "\r\n",
        "\r\n ",
        "\r\n\t",
        "\n",
        "\r",
        "x",
        "a b",
        "\xe4",
        "{0}",
    ]
)


@given(st.lists(_PIECES, max_size=24).map("".join), st.booleans())
def test_an_ordinary_header_is_hashed_in_one_go_as_field_by_field(text: str, ordinary: bool) -> None:
    """Whatever lines come before and behind: what the quick way takes has the same octets as by the long way."""
    lines = f"Date: x\r\n{text}\r\nX{{y}}: 1\r\nFrom: Ann <ann@example.com>\r\n\r\n" if ordinary else text
    header = lines.encode("latin-1")
    found = relaxed_fields(header)
    if found:
        names, values = zip(*found, strict=True)
        plan = plan_of("", names, tuple(dict.fromkeys(name.lower() for name in names)), frozenset())
        alone, whole = header_lines(header, relaxed=True)
        assert tuple(name.lower() for name in names) == alone
        assert plan.template.format(*values) == "".join([whole[place] for place in plan.places])


@pytest.mark.parametrize(
    "line",
    [b"Subject: x", b"Subject :  x  y \t", b"SUBJECT:\r\n\tx\r\n y", b"Subject:", b"X{y}: {0}", b"X-Y: \xe4"],
)
def test_the_usual_fields_are_hashed_in_one_go(line: bytes) -> None:
    assert relaxed_fields(b"From: ann@example.com\r\n" + line + b"\r\n\r\n")


@pytest.mark.parametrize(
    "line", [b"no field", b" Subject: x", b"Subject\r\n : x", b"Subject: x\rY: z", b"Subject: x\ny"]
)
def test_an_odd_header_is_hashed_field_by_field(line: bytes) -> None:
    header = line + b"\r\nFrom: ann@example.com\r\n\r\n"
    assert not relaxed_fields(header)
    assert verified(
        signed(DKIM("example.com", "e", ED25519), b"To: bob@example.org\r\n" + header.partition(b"\r\n")[2]),
        DKIM("example.com", "e", ED25519),
    )


def test_a_name_may_have_a_brace() -> None:
    one = DKIM("example.com", "e", ED25519, sign=["from", "x{y}"])
    message = signed(one, b"X{y}: {0}\r\nFrom: ann@example.com\r\n\r\n")
    assert "x{y}" in tags_of(message)["h"] and verified(message, one)


def test_what_is_signed_is_remembered_for_so_many_kinds_of_messages() -> None:
    one = DKIM("example.com", "e", ED25519)
    plan = one.plan(("From",))
    assert one.plan(("From",)) is plan
    for number in range(MOST_PLANS):
        one.plan(("From", f"X-{number}"))
    assert one.plan(("From",)) is not plan
    assert one.plan(("From",)) == plan
