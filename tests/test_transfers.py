"""transfers.py: the events of a body, derived by counting; through a client they are tried in test_upload.py."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from smtp_async.content import Content, Named, NamedContent, Source
from smtp_async.events import EndTransfer, StartTransfer, Transfer
from smtp_async.transfers import Transfers
from tests.lab import mail

SPANS = st.lists(
    st.tuples(st.sampled_from(["", "a", "b", "source"]), st.integers(0, 9)), min_size=1, max_size=8
)


@given(spans=SPANS, sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5), known=st.booleans())
def test_every_cut_of_every_content_tells_the_same_parts(
    spans: list[tuple[str, int]], sizes: list[int], known: bool
) -> None:
    """Each part from its beginning to its end, in order, and every octet counted once."""
    segments: list[bytes | Source] = []
    named: list[Named] = []
    for place, (name, count) in enumerate(spans):
        if name == "source":
            source = Source([], encoding="identity", name=f"{place} {name}")
            source.length = count if known else None
            segments += [source, b""]
            continue
        if not segments or not isinstance(segments[-1], bytes):
            segments.append(b"")
        before = segments[-1]
        assert isinstance(before, bytes)
        segments[-1] = before + b"x" * count
        if name:
            named.append(Named(f"{place} {name}", len(segments) - 1, len(before), len(before) + count))
    content = NamedContent(segments)
    content.named = tuple(named)
    told = Transfers(content, 1, 2)
    events: list[Any] = [*told.start()]
    sent, at = 0, 0
    counts = {f"{place} source": count for place, (name, count) in enumerate(spans) if name == "source"}
    for segment in content.segments:
        left = len(segment) if isinstance(segment, bytes) else counts[segment.name]
        while left:
            size = min(left, sizes[at % len(sizes)])
            at, left, sent = at + 1, left - size, sent + size
            events += told.passed(b"x" * size, None if isinstance(segment, bytes) else segment, sent)
    events += told.end()
    parts = [(f"{place} {name}", count) for place, (name, count) in enumerate(spans) if name]
    marks = [(type(one), one.part) for one in events if type(one) is not Transfer]
    assert marks == [
        (StartTransfer, "message"),
        *((kind, part) for part, _ in parts for kind in (StartTransfer, EndTransfer)),
    ]
    for part, count in parts:
        slices = [one for one in events if type(one) is Transfer and one.part == part]
        assert (slices[-1].sent if slices else 0) == count
    whole = [one for one in events if type(one) is Transfer and one.part == "message"]
    assert sum(len(one.data) for one in whole) == sum(count for _, count in spans)
    assert {one.session for one in events} == {1}
    assert {one.job for one in events} == {2}


def test_content_without_names_costs_nothing() -> None:
    assert Content((b"x",)).named == ()
    assert "named" not in Content.__slots__
    assert type(mail(1, html="<p>x</p>").content()) is Content
