"""The table of routes: what decides, and what cannot stand in it."""

from typing import Any

import pytest

from smtp_async.errors import InvalidArgument
from smtp_async.model.envelope import Envelope, Recipient
from smtp_async.processor import Routes
from smtp_async.spool.entry import Entry
from tests.processor.fakes import FakeClient

A: Any = FakeClient()
B: Any = FakeClient()
C: Any = FakeClient()


def choose(table: Routes, to: str, sender: str | None = "ann@example.com", tag: str | None = None) -> Any:
    entry = Entry(id="1", envelope=Envelope(sender, [to]), created=1.0, size=1, tag=tag)
    return table(entry, entry.envelope.recipients[0])


def test_the_tag_decides_before_the_recipient_and_that_before_the_sender() -> None:
    table = Routes(by_tag={"bulk": A}, by_recipient={"example.org": B}, by_sender={"example.com": C})
    assert choose(table, "bob@example.org", tag="bulk") is A
    assert choose(table, "bob@example.org", tag="other") is B
    assert choose(table, "bob@example.net") is C
    assert choose(table, "bob@example.net", "ann@example.net") is None
    assert list(table.clients()) == [A, B, C]


def test_a_domain_with_a_dot_stands_for_its_subdomains() -> None:
    table = Routes(by_recipient={".example.org": A, "example.org": B, ".a.example.org": C})
    found = [choose(table, f"bob@{domain}") for domain in ("example.org", "x.example.org", "x.a.example.org")]
    assert found == [B, A, C]
    assert choose(table, "bob@a.example.org") is A
    assert choose(table, "bob@notexample.org") is None
    assert choose(Routes(by_recipient={".example.org": A}), "bob@example.org") is None


@pytest.mark.parametrize("key", ["bücher.example", "xn--bcher-kva.example", "XN--BCHER-KVA.Example"])
@pytest.mark.parametrize("domain", ["bücher.example", "xn--bcher-kva.example", "BÜCHER.example"])
def test_a_domain_matches_in_either_form(key: str, domain: str) -> None:
    assert choose(Routes(by_recipient={key: A}), f"bob@{domain}") is A
    assert choose(Routes(by_sender={f".{key}": A}), "bob@x.test", f"ann@sub.{domain}") is A


def test_an_address_literal_and_the_empty_return_path_have_routes() -> None:
    assert choose(Routes(by_recipient={"[192.0.2.1]": A}), "bob@[192.0.2.1]") is A
    assert choose(Routes(by_sender={"": A}), "bob@x.test", None) is A
    assert choose(Routes(by_sender={"example.com": A}), "bob@x.test", None) is None


@pytest.mark.parametrize("table", ["by_tag", "by_recipient", "by_sender"])
def test_what_is_no_client_is_refused(table: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"{table}\['x.test'\] is a client"):
        Routes(**{table: {"x.test": "mx.example.org"}})  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=f"a key of {table} is a string"):
        Routes(**{table: {7: A}})  # type: ignore[arg-type]


def test_a_domain_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        Routes(by_recipient={"a b": A})


def test_a_later_change_of_the_callers_table_changes_no_route() -> None:
    callers = {"example.org": A}
    table = Routes(by_recipient=callers)
    tagged = Routes(by_tag=callers)
    callers["example.org"] = B
    assert choose(table, "bob@example.org") is A
    assert choose(tagged, "bob@x.test", tag="example.org") is A


def test_the_recipient_decides_by_its_own_domain() -> None:
    table = Routes(by_recipient={"a.test": A, "b.test": B})
    entry = Entry(id="1", envelope=Envelope(None, ["x@a.test", "x@b.test"]), created=1.0, size=1)
    assert [table(entry, one) for one in entry.envelope.recipients] == [A, B]
    assert table(entry, Recipient("x@c.test")) is None
