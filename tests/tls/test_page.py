"""The page about TLS problems shows the sentences of today, and every kind of problem."""

from __future__ import annotations

from smtp_async import ChainProblem
from tests.tls.cases import PLAIN
from tests.tls.page import ADVICE, BLOCK, PAGE, written


def test_the_sentences_are_those_of_today() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert written(text) == text, "python -m tests.tls.page writes them anew"


def test_every_table_is_shown() -> None:
    shown = {name for _, name, _ in BLOCK.findall(PAGE.read_text(encoding="utf-8"))}
    assert shown == set(ADVICE)


def test_every_problem_is_named_or_follows_from_another() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = {one for one in ChainProblem if f"`{one.name}`" in text}
    assert named == set(ChainProblem)


def test_every_case_that_openssl_knows_has_advice() -> None:
    told = {name for table in ADVICE.values() for name in table}
    wrong = {name for name, case in PLAIN.items() if case.error is not None}
    assert wrong - told <= {"weak key of an authority", "MD5", "SHA-1, and forged", "everything at once"}
