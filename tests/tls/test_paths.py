"""paths.py: the ways to a trusted certificate."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from smtp_async.tls import Certificate
from smtp_async.tls.paths import LONGEST, Anchors, Path, find_paths, read_certificate
from tests.tls.authority import DAY, NOW, Entity, intermediate, make, root


def paths(
    leaf: Entity, sent: Sequence[Entity], trusted: Sequence[Entity], known: Sequence[Entity] = ()
) -> list[Path]:
    others = [one.certificate for one in sent]
    return list(
        find_paths(
            leaf.certificate, others, [one.certificate for one in known], Anchors(one.der for one in trusted)
        )
    )


def names(path: Path) -> list[str]:
    return [one.common_name for one in path.certificates]


def test_order_and_surplus_do_not_matter() -> None:
    leaf = make("S", intermediate())
    (path,) = paths(leaf, [make("X", ca=True), root(), intermediate()], [root()])
    assert path.trusted and names(path) == ["S", "Intermediate", "Root"]


def test_a_trusted_certificate_ends_the_way() -> None:
    leaf = make("S", intermediate())
    assert names(paths(leaf, [intermediate(), root()], [intermediate()])[0]) == ["S", "Intermediate"]
    assert names(paths(leaf, [intermediate(), root()], [leaf])[0]) == ["S"]


def test_known_certificates_lead_to_trusted_ones() -> None:
    leaf = make("S", intermediate())
    assert not paths(leaf, [], [root()])[0].trusted
    assert paths(leaf, [], [root()], [intermediate()])[0].trusted


def test_every_way_is_found() -> None:
    """Two authorities have certified the same key: one of the two may have expired."""
    other = make("Other", ca=True)
    crossed = make("Intermediate", other, ca=True, key=intermediate().key, begin=NOW - 9 * DAY, end=NOW - DAY)
    leaf = make("S", intermediate())
    found = paths(leaf, [crossed, intermediate()], [other, root()])
    assert [names(path)[-1] for path in found] == ["Other", "Root"]
    assert all(path.trusted for path in found)


def test_the_signature_decides_between_issuers_of_one_name() -> None:
    twin = make("Intermediate", root(), ca=True, identifiers=False)
    leaf = make("S", intermediate())
    (path,) = paths(leaf, [twin, intermediate()], [root()])
    assert path.certificates[1] == intermediate().certificate and not path.unsigned


def test_the_identifier_of_the_key_decides() -> None:
    twin = make("Intermediate", root(), ca=True)
    (path,) = paths(make("S", intermediate()), [twin], [root()])
    assert names(path) == ["S"] and not path.trusted


def test_an_issuer_that_has_not_signed_is_told() -> None:
    leaf = make("S", root(), signer=make("X").key)
    (path,) = paths(leaf, [], [root()])
    assert path.trusted and path.unsigned == {0}


def test_circles_end() -> None:
    one, two = make("One", ca=True), make("Two", ca=True)
    a, b = make("One", two, ca=True, key=one.key), make("Two", one, ca=True, key=two.key)
    (path,) = paths(make("S", a), [a, b], [])
    assert path.loop and not path.trusted and names(path) == ["S", "One", "Two"]


def test_a_certificate_that_signed_itself_is_no_circle() -> None:
    (path,) = paths(make("S"), [], [])
    assert not path.loop


def test_long_ways_end() -> None:
    above = [make("A0", ca=True)]
    for number in range(1, 20):
        above.append(make(f"A{number}", above[-1], ca=True))
    (path,) = paths(make("S", above[-1]), above, [above[0]])
    assert len(path.certificates) == LONGEST and not path.trusted


def test_the_search_is_bounded() -> None:
    key = make("Twin", ca=True).key
    first = make("Twin", ca=True, key=key)
    twins = [make("Twin", first, ca=True, key=key) for _ in range(20)]
    assert 1 <= len(paths(make("S", first), twins, [])) <= 8


@given(st.binary(max_size=300))
def test_anything_may_be_sent(data: bytes) -> None:
    assert isinstance(read_certificate(data, 1000, 10), Certificate | str)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_damaged_certificates_are_read_or_refused(at: int, patch: bytes) -> None:
    der = root().der
    found = read_certificate(der[:at] + patch + der[at + len(patch) :], 64 * 1024, 32)
    assert isinstance(found, Certificate | str)
    if isinstance(found, Certificate):
        list(find_paths(found, [found, root().certificate], [], Anchors([root().der])))
