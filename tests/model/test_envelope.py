"""envelope.py: recipients, envelopes, and that all of it are values."""

import copy
import pickle

import pytest

from smtp_async.errors import InvalidAddress, MissingRecipient
from smtp_async.model.address import Address
from smtp_async.model.dsn import DSN, Notify
from smtp_async.model.envelope import EVERYONE, NOBODY, Envelope, Kind, Recipient


def test_recipients():
    recipient = Recipient("Ann <a@b>", Kind.BCC)
    assert (recipient.name, recipient.kind, str(recipient.address)) == ("Ann", Kind.BCC, "a@b")
    assert Recipient.of(recipient) is recipient
    assert Recipient.of("a@b").kind is Kind.TO
    assert Recipient.of(Address.parse("a@b"), Kind.CC).kind is Kind.CC
    assert frozenset(Kind) == EVERYONE
    assert not NOBODY
    with pytest.raises(InvalidAddress):
        Recipient("a@b, c@d")


def test_envelopes():
    envelope = Envelope("a@b", ["c@d", Address.parse("e@f"), Recipient("g@h", Kind.BCC)])
    assert str(envelope.sender) == "a@b"
    assert [r.kind for r in envelope.recipients] == [Kind.TO, Kind.TO, Kind.BCC]
    assert Envelope(None, ["a@b"]).sender is None
    assert Envelope("<>", ["a@b"]).sender is None
    with pytest.raises(MissingRecipient):
        Envelope("a@b", [])
    with pytest.raises(InvalidAddress):
        Envelope("a@b", "c@d")
    with pytest.raises(InvalidAddress):
        Envelope("", ["c@d"])


def test_who_needs_smtputf8():
    assert not Envelope("a@faß.de", ["b@x"]).needs_utf8
    assert not Envelope(None, ["b@x"]).needs_utf8
    assert Envelope("ä@x", ["b@x"]).needs_utf8
    assert Envelope("a@x", ["b@x", "ü@x"]).needs_utf8


@pytest.mark.parametrize(
    "value",
    [
        Address.parse('"N, Ü" <"a b"@faß.de>'),
        Recipient("ü@faß.de", Kind.CC),
        Envelope(None, ["a@b", Recipient("c@d", Kind.BCC)]),
        Envelope("a@b", ["c@d"]),
    ],
)
def test_values_pickle_copy_hash_and_are_immutable(value):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        twin = pickle.loads(pickle.dumps(value, protocol))
        assert twin == value
        assert repr(twin) == repr(value)
        assert hash(twin) == hash(value)
    assert copy.deepcopy(value) == copy.copy(value) == value
    for name in ("local", "domain", "address", "kind", "sender", "recipients", "other"):
        with pytest.raises(AttributeError):
            setattr(value, name, "x")


def test_reprs_hide_nothing():
    assert repr(Address.parse("Ann <a@b>")) == "Address('a', 'b', name='Ann')"
    assert repr(Recipient("a@b")) == "Recipient(Address('a', 'b'), Kind.TO)"
    assert repr(Envelope(None, ["a@b"])) == "Envelope(None, [Recipient(Address('a', 'b'), Kind.TO)])"


def test_a_recipient_may_have_another_name_and_wants_to_be_reported():
    dsn = DSN(notify=Notify.SUCCESS)
    recipient = Recipient("Ann <ann@faß.de>", Kind.CC, name='B. "x", C', dsn=dsn)
    assert (recipient.name, recipient.dsn, recipient.kind) == ('B. "x", C', dsn, Kind.CC)
    assert recipient.address == Address.parse("ann@faß.de")
    assert Recipient("Ann <a@b>").name == "Ann"
    assert Recipient("Ann <a@b>", name="").name == ""
    assert Recipient("a@b").dsn is None
    assert recipient != Recipient("ann@faß.de", Kind.CC)
    assert repr(Recipient("a@b", dsn=dsn)).endswith(
        ", Kind.TO, dsn=DSN(notify=<Notify.SUCCESS: 2>, orcpt=None))"
    )
    for name in ("a\r\nBcc: x", "\0", "x" * 1001):
        with pytest.raises(InvalidAddress):
            Recipient("a@b", name=name)
    twin = pickle.loads(pickle.dumps(recipient))
    assert (twin, twin.name, hash(twin)) == (recipient, recipient.name, hash(recipient))
