"""problems.py: the numbers of problems, verdicts, and what is excused."""

from __future__ import annotations

import pickle

import pytest

from smtp_async import ChainProblem, ChainResult, ChainValidation
from smtp_async.tls.problems import ABSOLUTE, IGNORABLE, Fault
from tests.tls.authority import make

P = ChainProblem


def judged(*problems: ChainProblem, **kwargs: object) -> ChainValidation:
    return ChainValidation(faults=tuple(Fault(one, f"it is {one.name}") for one in problems), **kwargs)  # type: ignore[arg-type]


def test_problems_have_the_numbers_of_the_components() -> None:
    numbers = {
        P.BAD_DATA: 0x1, P.REVOKED: 0x2, P.NOT_YET_VALID: 0x4, P.EXPIRED: 0x8, P.INVALID_SIGNATURE: 0x10,
        P.UNKNOWN_AUTHORITY: 0x20, P.NOT_AUTHORIZED: 0x40, P.HOST_NAME: 0x200, P.USAGE: 0x400, P.BLOCKED: 0x800,
        P.UNKNOWN_EXTENSION: 0x1000, P.LOOP: 0x2000, P.WEAK: 0x4000, P.REFUSED: 0x8000,
    }  # fmt: skip
    assert all(problem == number for problem, number in numbers.items())
    assert [one.value for one in ChainResult] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("validation", "result"),
    [
        (judged(), ChainResult.VALID),
        (judged(P.EXPIRED), ChainResult.INVALID),
        (judged(P.EXPIRED, excused=P.TIME), ChainResult.VALID),
        (judged(P.UNKNOWN_AUTHORITY), ChainResult.VALID_BUT_UNTRUSTED),
        (judged(P.UNKNOWN_AUTHORITY, complete=False), ChainResult.CANNOT_BE_ESTABLISHED),
        (judged(P.UNKNOWN_AUTHORITY, P.HOST_NAME), ChainResult.INVALID),
        (judged(P.UNKNOWN_REVOCATION), ChainResult.CANNOT_BE_ESTABLISHED),
        (judged(judged=False, log=("not judged",)), ChainResult.CANNOT_BE_ESTABLISHED),
    ],
)
def test_results(validation: ChainValidation, result: ChainResult) -> None:
    assert validation.result is result


def test_what_is_excused_does_not_count_but_proves_nothing() -> None:
    found = judged(P.EXPIRED, P.HOST_NAME, excused=P.TIME)
    assert (found.accepted, found.verified, found.counted) == (False, False, P.HOST_NAME)
    assert found.status == "it is HOST_NAME"
    assert found.reason == "it is EXPIRED; it is HOST_NAME"
    passed = found.excusing(P.HOST_NAME)
    assert (passed.accepted, passed.verified, passed.status) == (True, False, "OK")


def test_what_is_absolute_is_never_excused() -> None:
    found = judged(P.BLOCKED, P.PIN, P.REFUSED, P.EXPIRED).excusing(~P(0))
    assert found.counted == ABSOLUTE
    assert not ABSOLUTE & IGNORABLE


def test_without_judgement_the_log_tells_why() -> None:
    assert judged(judged=False, log=("it was not looked at",)).reason == "it was not looked at"


def test_it_can_be_pickled() -> None:
    entity = make("S")
    found = judged(P.EXPIRED, path_der=(entity.der,), log=("a",))
    assert pickle.loads(pickle.dumps(found)) == found
    assert [one.subject for one in found.path] == ["CN=S"]


def test_the_gravest_problem_stands_first() -> None:
    found = judged(P.WEAK).plus(
        Fault(P.REFUSED, "no"), Fault(P.REVOKED, "it was revoked"), Fault(P.BLOCKED, "never")
    )
    assert [fault.problem for fault in found.faults] == [P.BLOCKED, P.REFUSED, P.REVOKED, P.WEAK]
