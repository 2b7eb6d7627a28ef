"""Revocation of the certificates of a path: sources and their order, failures, deadlines, and what is remembered."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.testing import CancelManner, CancelMoment, cancellations
from smtp_async.tls.certificate import Certificate
from smtp_async.tls.revocation import RevocationChecker
from smtp_async.tls.revocation_options import (
    RevocationOptions,
    RevocationPolicy,
    RevocationState,
    RevocationStatus,
)
from smtp_async.tls.revocation_proofs import judge_crls
from tests.lab import every_loop, turns, until
from tests.tls.revocation_lab import (
    DAY,
    HOUR,
    NOW,
    Page,
    Site,
    dead,
    endless,
    new_root,
    site,
    stalling,
)

pytestmark = pytest.mark.usefixtures("no_leaks")

HERE = ("127.0.0.1", 25)
POINT = x509.DistributionPoint([x509.UniformResourceIdentifier("http://delta.example/")], None, None, None)
GOOD, REVOKED, UNKNOWN = RevocationState
NONE, AUTO, CRL, OCSP, CRL_THEN_OCSP, OCSP_THEN_CRL, ALL = RevocationPolicy
ASKING = [one for one in RevocationPolicy if one is not NONE]


class Lab:
    """A site that answers for a root and an authority, and the path of a certificate that names it."""

    def __init__(self, here: Site, *, ocsp: bool = True, crl: bool = True) -> None:
        self.site = here
        self.root = new_root()
        self.authority = self.root.issue(
            "Authority",
            authority=True,
            ocsp_urls=[here.url("/root")] if ocsp else (),
            crl_urls=[here.url("/root.crl")] if crl else (),
        )
        self.leaf = self.authority.issue(
            "leaf",
            ocsp_urls=[here.url("/ocsp")] if ocsp else (),
            crl_urls=[here.url("/ca.crl")] if crl else (),
        )
        here.pages = {"/root": self.root.answer, "/ocsp": self.authority.answer}
        here.pages |= {
            "/root.crl": lambda _: self.root.crl(),
            "/ca.crl": lambda _: self.authority.crl(),
        }

    @property
    def path(self) -> list[Certificate]:
        return [one.certificate for one in (self.leaf, self.authority, self.root)]

    def break_(self, path: str, how=dead) -> None:
        self.site.wild[path] = how

    async def check(
        self, checker: RevocationChecker | None = None, *, peer=HERE, now: datetime = NOW, **options
    ) -> tuple[RevocationStatus, ...]:
        checker = checker or RevocationChecker(RevocationOptions(**options))
        return await checker.check(self.path, peer_address=peer, now=now)

    async def of_leaf(self, checker: RevocationChecker | None = None, **options) -> RevocationStatus:
        found = await self.check(checker, **options)
        return found[0]


@contextlib.asynccontextmanager
async def lab(**options) -> AsyncIterator[Lab]:
    async with site() as here:
        yield Lab(here, **options)


def states(found: tuple[RevocationStatus, ...]) -> list[RevocationState]:
    return [one.state for one in found]


async def seconds_of(call) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await call
    return loop.time() - began


# --- policies ------------------------------------------------------------------------------------------------


@every_loop
@pytest.mark.parametrize("policy", ASKING)
async def test_good(policy: RevocationPolicy) -> None:
    async with lab() as one:
        leaf, authority = await one.check(policy=policy)
    assert (leaf.state, authority.state) == (GOOD, GOOD)
    assert leaf.text.startswith("CN=leaf is not revoked, says http://127.0.0.1:")
    assert leaf.valid_until == NOW + DAY


@pytest.mark.parametrize("policy", ASKING)
async def test_revoked(policy: RevocationPolicy) -> None:
    async with lab() as one:
        one.authority.revoke(one.leaf, since=NOW - DAY)
        leaf, authority = await one.check(policy=policy)
    assert (leaf.state, authority.state) == (REVOKED, GOOD)
    assert (leaf.reason, leaf.revoked_at) == ("a compromised key", NOW - DAY)
    assert leaf.text.startswith(
        f"CN=leaf was revoked on {NOW - DAY:%Y-%m-%d %H:%M} UTC (a compromised key), says "
    )


@pytest.mark.parametrize("policy", ASKING)
async def test_an_authority_that_was_revoked(policy: RevocationPolicy) -> None:
    async with lab() as one:
        one.root.revoke(one.authority, reason=x509.ReasonFlags.ca_compromise)
        assert states(await one.check(policy=policy)) == [GOOD, REVOKED]


@pytest.mark.parametrize(
    ("policy", "asked"),
    [
        (AUTO, ["/ocsp"]),
        (OCSP, ["/ocsp"]),
        (CRL, ["/ca.crl"]),
        (OCSP_THEN_CRL, ["/ocsp"]),
        (CRL_THEN_OCSP, ["/ca.crl"]),
        (ALL, ["/ca.crl", "/ocsp"]),
    ],
)
async def test_which_sources_are_asked(policy: RevocationPolicy, asked: list[str]) -> None:
    async with lab() as one:
        await one.check(policy=policy)
        assert sorted(path for path in one.site.paths() if "root" not in path) == asked


@pytest.mark.parametrize(
    ("policy", "broken", "state"),
    [
        (AUTO, "/ocsp", GOOD),
        (OCSP_THEN_CRL, "/ocsp", GOOD),
        (CRL_THEN_OCSP, "/ca.crl", GOOD),
        (OCSP, "/ocsp", UNKNOWN),
        (CRL, "/ca.crl", UNKNOWN),
        (ALL, "/ocsp", UNKNOWN),
        (ALL, "/ca.crl", UNKNOWN),
    ],
)
@pytest.mark.parametrize("how", [Page(status=500), b"garbage", None])
async def test_one_source_fails(policy, broken: str, state: RevocationState, how) -> None:
    async with lab() as one:
        if how is None:
            one.break_(broken)
        else:
            one.site.pages[broken] = how
        # A dead source has half the time before the other one is asked, and that half is enough for a loaded machine.
        found = await one.of_leaf(policy=policy, deadline=5.0 if state is GOOD else 1.0)
    assert found.state is state
    if state is UNKNOWN:
        assert found.text.startswith("whether CN=leaf was revoked is not known: http://127.0.0.1:")
        assert broken in found.text


async def test_a_source_that_says_revoked_outweighs_all_others() -> None:
    async with lab() as one:
        good = one.authority.crl()
        one.authority.revoke(one.leaf)
        one.site.pages["/ca.crl"] = good
        assert (await one.of_leaf(policy=ALL)).state is REVOKED
        assert (await one.of_leaf(policy=CRL)).state is GOOD


async def test_nothing_is_asked_under_none() -> None:
    async with lab() as one:
        assert await one.check(policy=NONE) == ()
        assert one.site.requests == []


async def test_a_path_of_one_certificate_has_nobody_to_ask() -> None:
    checker = RevocationChecker(RevocationOptions())
    for path in ([], [new_root().certificate]):
        assert await checker.check(path, peer_address=None, now=NOW) == ()


@pytest.mark.parametrize("policy", ASKING)
async def test_a_certificate_that_names_nothing(policy: RevocationPolicy) -> None:
    async with lab(ocsp=False, crl=False) as one:
        found = await one.of_leaf(policy=policy)
    assert found.state is UNKNOWN
    assert "the certificate names no " in found.text


async def test_all_is_what_the_certificate_names() -> None:
    async with lab(ocsp=False) as one:
        assert states(await one.check(policy=ALL)) == [GOOD, GOOD]


async def test_a_certificate_that_its_issuer_never_revokes() -> None:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.56"), b"\x05\x00")
    root = new_root()
    leaf = root.issue("leaf", extensions=[extension])
    path = [leaf.certificate, root.certificate]
    found = await RevocationChecker(RevocationOptions(policy=ALL)).check(path, peer_address=None, now=NOW)
    assert states(found) == [GOOD]
    assert "RFC 9608" in found[0].text


@pytest.mark.parametrize("hash_name", ["sha1", "sha256"])
async def test_the_hash_of_requests(hash_name: str) -> None:
    async with lab() as one:
        assert (await one.of_leaf(policy=OCSP, ocsp_hash=hash_name)).state is GOOD
        oid = {"sha1": bytes.fromhex("2b0e03021a"), "sha256": bytes.fromhex("608648016503040201")}[hash_name]
        assert all(oid in request.body for request in one.site.requests)


async def test_the_name_of_the_application_is_sent() -> None:
    async with lab() as one:
        assert (await one.of_leaf(policy=ALL, user_agent="mailer/2.1")).state is GOOD
        asked = [(request.method, request.headers["user-agent"]) for request in one.site.requests]
    assert set(asked) == {("GET", "mailer/2.1"), ("POST", "mailer/2.1")}


@pytest.mark.parametrize("good_at", [0, 1])
async def test_one_of_several_responders_is_enough(good_at: int) -> None:
    async with site() as here:
        root = new_root()
        urls = [here.url("/0"), here.url("/1")]
        leaf = root.issue("leaf", ocsp_urls=urls)
        here.pages[f"/{good_at}"] = root.answer
        here.wild[f"/{1 - good_at}"] = dead
        path = [leaf.certificate, root.certificate]
        checker = RevocationChecker(RevocationOptions(policy=OCSP, deadline=5.0))
        spent = await seconds_of(checker.check(path, peer_address=HERE, now=NOW))
        (found,) = await checker.check(path, peer_address=HERE, now=NOW)
        assert found.state is GOOD and found.source == urls[good_at]
        assert spent < 4
        # All of them must answer under ALL.
        strict = RevocationChecker(RevocationOptions(policy=ALL, deadline=0.5))
        assert states(await strict.check(path, peer_address=HERE, now=NOW)) == [UNKNOWN]


# --- what the application has --------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ASKING)
async def test_known_evidence_is_enough(policy: RevocationPolicy) -> None:
    async with lab() as one:
        one.authority.revoke(one.leaf)
        crls = [one.root.crl(), one.authority.crl()]
        serials = one.leaf.certificate.serial_number, one.authority.certificate.serial_number
        responses = [one.root.response(serials[1]), one.authority.response(serials[0])]
        leaf, authority = await one.check(policy=policy, crls=crls, responses=responses)
        if policy is not ALL:
            assert one.site.requests == []
    assert (leaf.state, authority.state) == (REVOKED, GOOD)
    assert leaf.source in ("RevocationOptions.crls", "RevocationOptions.responses")


@pytest.mark.parametrize("policy", [AUTO, OCSP_THEN_CRL, CRL_THEN_OCSP])
@pytest.mark.parametrize("kind", ["crls", "responses"])
async def test_known_evidence_of_either_kind_comes_before_fetching(
    policy: RevocationPolicy, kind: str
) -> None:
    async with lab() as one:
        serial = one.leaf.certificate.serial_number
        evidence = {"crls": one.authority.crl(), "responses": one.authority.response(serial)}[kind]
        options: dict[str, Any] = {kind: [evidence]}
        found = await one.of_leaf(policy=policy, **options)
        assert (found.state, found.source) == (GOOD, f"RevocationOptions.{kind}")
        assert not {"/ocsp", "/ca.crl"} & set(one.site.paths())


async def test_under_all_known_evidence_stands_for_its_kind() -> None:
    async with lab() as one:
        crls = [one.root.crl(), one.authority.crl()]
        assert states(await one.check(policy=ALL, crls=crls)) == [GOOD, GOOD]
        assert sorted(one.site.paths()) == ["/ocsp", "/root"]
        one.site.pages["/ocsp"] = Page(status=500)
        assert (await one.of_leaf(policy=ALL, crls=crls)).state is UNKNOWN


async def test_known_evidence_that_is_stale_or_of_others_is_not() -> None:
    async with lab() as one:
        stale = one.authority.crl(since=NOW - 9 * DAY, until=NOW - DAY)
        one.authority.revoke(one.leaf)
        foreign = one.root.response(one.leaf.certificate.serial_number)
        found = await one.of_leaf(policy=CRL, crls=[stale, new_root().crl()], responses=[foreign])
        assert found.state is REVOKED
        assert found.source == one.site.url("/ca.crl")


async def test_a_known_delta_goes_with_a_list_that_is_fetched() -> None:
    async with lab() as one:
        base = one.authority.crl(plain_extensions=[x509.FreshestCRL([POINT]), x509.CRLNumber(7)])
        one.authority.revoke(one.leaf)
        delta = one.authority.crl(
            extensions=[x509.DeltaCRLIndicator(7)], plain_extensions=[x509.CRLNumber(8)]
        )
        one.site.pages["/ca.crl"] = base
        assert (await one.of_leaf(policy=CRL)).state is GOOD
        assert (await one.of_leaf(policy=CRL, crls=[delta])).state is REVOKED


async def test_known_evidence_about_certificates_that_name_nothing() -> None:
    async with lab(ocsp=False, crl=False) as one:
        crls = [one.root.crl(), one.authority.crl()]
        assert states(await one.check(policy=ALL, crls=crls)) == [GOOD, GOOD]
        assert states(await one.check(policy=AUTO, crls=crls)) == [GOOD, GOOD]


# --- failures and deadlines ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (Page(status=404), "answers with HTTP status 404"),
        (b"", "is no CRL that can be read"),
        (b"garbage", "is no CRL that can be read"),
        (Page(status=302, headers={"Location": "https://127.0.0.1:1/"}), "redirects from http to https"),
        (
            Page(status=302, headers={"Location": "http://169.254.169.254/"}),
            "is at 169.254.169.254, a link-local",
        ),
        (endless, "has more than 2000 bytes"),
        (stalling, "did not answer within "),
        (dead, "did not answer within "),
    ],
)
async def test_a_crl_that_cannot_be_had(content, said: str) -> None:
    async with lab() as one:
        if content in (endless, stalling, dead):
            one.break_("/ca.crl", content)
        else:
            one.site.pages["/ca.crl"] = content
        found = await one.of_leaf(policy=CRL, deadline=1.0, max_size=2000)
    assert found.state is UNKNOWN
    assert said in found.text


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"garbage", "sends no OCSP response that can be read"),
        (bytes.fromhex("30030a0103"), "answers try later"),
        (bytes.fromhex("30030a0106"), "answers unauthorized"),
    ],
)
async def test_an_ocsp_response_that_is_none(answer: bytes, said: str) -> None:
    async with lab() as one:
        one.site.pages["/ocsp"] = answer
        found = await one.of_leaf(policy=OCSP)
    assert (found.state, said in found.text) == (UNKNOWN, True)


@pytest.mark.parametrize("policy", ASKING)
async def test_all_are_dead(policy: RevocationPolicy) -> None:
    """The deadline is for all certificates and all sources together, and later connections do not wait at all."""
    async with lab() as one:
        for path in ("/ocsp", "/ca.crl", "/root", "/root.crl"):
            one.break_(path)
        checker = RevocationChecker(RevocationOptions(policy=policy, deadline=0.6))
        assert 0.4 < await seconds_of(one.check(checker)) < 3
        asked = len(one.site.requests)
        assert await seconds_of(one.check(checker, now=NOW + timedelta(minutes=59))) < 0.2
        assert states(await one.check(checker)) == [UNKNOWN, UNKNOWN]
        assert len(one.site.requests) == asked
        assert 0.4 < await seconds_of(one.check(checker, now=NOW + HOUR)) < 3


async def test_a_dead_responder_is_left_alone_for_other_certificates_too() -> None:
    async with lab() as one:
        one.break_("/ocsp")
        checker = RevocationChecker(RevocationOptions(policy=OCSP, deadline=0.6))
        await one.check(checker)
        one.leaf = one.authority.issue("renewed", ocsp_urls=[one.site.url("/ocsp")])
        assert await seconds_of(one.check(checker)) < 0.4
        assert one.site.paths().count("/ocsp") == 1


@pytest.mark.parametrize("policy", ASKING)
async def test_what_proves_nothing_is_not_asked_for_again(policy: RevocationPolicy) -> None:
    async with lab() as one:
        one.site.pages = dict.fromkeys(one.site.pages, b"garbage")
        checker = RevocationChecker(RevocationOptions(policy=policy))
        first = await one.check(checker)
        asked = len(one.site.requests)
        assert await one.check(checker, now=NOW + timedelta(minutes=59)) == first
        assert len(one.site.requests) == asked
        await one.check(checker, now=NOW + HOUR)
        assert len(one.site.requests) == 2 * asked


async def test_under_hard_fail_every_connection_asks_again() -> None:
    async with lab() as one:
        one.site.pages["/ocsp"] = Page(status=500)
        checker = RevocationChecker(RevocationOptions(policy=OCSP, hard_fail=True))
        assert (await one.of_leaf(checker)).state is UNKNOWN
        one.site.pages["/ocsp"] = one.authority.answer
        assert (await one.of_leaf(checker)).state is GOOD


async def test_what_judges_too_long_goes_on_for_the_next_connection(monkeypatch) -> None:
    go_on = asyncio.Event()
    real = asyncio.to_thread

    async def slow(function, *arguments):
        if function is judge_crls:
            await go_on.wait()
        return await real(function, *arguments)

    async with lab() as one:
        monkeypatch.setattr(asyncio, "to_thread", slow)
        checker = RevocationChecker(RevocationOptions(policy=CRL, deadline=0.3))
        found = await one.of_leaf(checker)
        assert found.text == "whether CN=leaf was revoked is not known: there was no answer within 0.3 s"
        go_on.set()
        assert (await one.of_leaf(RevocationChecker(RevocationOptions(policy=CRL)))).state is GOOD
        assert (await one.of_leaf(checker)).state is GOOD
        assert sorted(set(one.site.paths())) == ["/ca.crl", "/root.crl"]


async def test_nothing_raises(monkeypatch) -> None:
    def broken(*_) -> None:
        raise RecursionError("deep")

    monkeypatch.setattr("smtp_async.tls.revocation.sources_of", broken)
    async with lab() as one:
        found = await one.of_leaf()
    assert found.state is UNKNOWN
    assert found.text.endswith("looking failed: RecursionError: deep")


@given(st.binary(max_size=200), st.sampled_from(ASKING))
def test_garbage_is_unknown(garbage: bytes, policy: RevocationPolicy) -> None:
    async def run() -> None:
        async with site() as here:
            leaf = ROOT.issue("leaf", ocsp_urls=[here.url("/")], crl_urls=[here.url("/")])
            here.pages["/"] = garbage
            checker = RevocationChecker(RevocationOptions(policy=policy))
            path = [leaf.certificate, ROOT.certificate]
            assert states(await checker.check(path, peer_address=HERE, now=NOW)) == [UNKNOWN]

    asyncio.run(run())


ROOT = new_root()


# --- addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "peer", [None, "/run/mail.sock", ("192.0.3.1", 25), ("192.168.0.1", 25), ("10.0.0.1", 25)]
)
@pytest.mark.parametrize("policy", ASKING)
async def test_a_mail_server_elsewhere_leads_to_nothing_on_this_host(peer, policy: RevocationPolicy) -> None:
    async with lab() as one:
        found = await one.check(policy=policy, peer=peer)
        assert states(found) == [UNKNOWN, UNKNOWN]
        assert "is at 127.0.0.1, a loopback address, which certificates may not name here" in found[0].text
        assert one.site.requests == []


async def test_what_is_known_of_one_mail_server_is_not_of_another() -> None:
    async with lab() as one:
        checker = RevocationChecker(RevocationOptions())
        assert (await one.of_leaf(checker, peer=None)).state is UNKNOWN
        assert (await one.of_leaf(checker)).state is GOOD


# --- what is remembered --------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ASKING)
@pytest.mark.parametrize("revoked", [False, True])
async def test_an_answer_is_kept_as_long_as_it_is_valid(policy: RevocationPolicy, revoked: bool) -> None:
    async with lab() as one:
        if revoked:
            one.authority.revoke(one.leaf)
        checker = RevocationChecker(RevocationOptions(policy=policy))
        first = await one.check(checker)
        asked = len(one.site.requests)
        for now in (NOW, NOW + DAY - timedelta(seconds=1)):
            assert await one.check(checker, now=now) == first
        assert len(one.site.requests) == asked
        one.site.pages = {}
        # It has ended, and nobody answers any more; nor is it known of a time before.
        for now in (NOW + DAY, NOW - timedelta(seconds=1)):
            assert states(await one.check(checker, now=now)) == [UNKNOWN, UNKNOWN]
        assert len(one.site.requests) > asked


async def test_a_crl_serves_all_certificates_of_its_issuer() -> None:
    async with lab() as one:
        checker = RevocationChecker(RevocationOptions(policy=CRL))
        await one.check(checker)
        one.leaf = one.authority.issue("another", crl_urls=[one.site.url("/ca.crl")])
        assert (await one.of_leaf(checker)).state is GOOD
        assert one.site.paths().count("/ca.crl") == 1
        assert (await one.of_leaf(checker, now=NOW + DAY + HOUR)).state is UNKNOWN
        assert one.site.paths().count("/ca.crl") == 2


@every_loop
async def test_many_connections_ask_once() -> None:
    async with lab() as one:
        checker = RevocationChecker(RevocationOptions(policy=ALL))
        found = await asyncio.gather(*(one.check(checker) for _ in range(20)))
        assert all(states(each) == [GOOD, GOOD] for each in found)
        assert sorted(one.site.paths()) == ["/ca.crl", "/ocsp", "/root", "/root.crl"]


# --- cancelling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manner", CancelManner)
@pytest.mark.parametrize("moment", CancelMoment)
async def test_cancelled_at_every_await(manner: CancelManner, moment: CancelMoment) -> None:
    async with lab() as one:
        checkers = []

        async def scenario() -> RevocationStatus:
            checkers.append(RevocationChecker(RevocationOptions(policy=ALL)))
            return await one.of_leaf(checkers[-1])

        async for run in cancellations(scenario, manner=manner, moment=moment):
            assert not run.injected or isinstance(run.error, asyncio.CancelledError)
            assert (await one.of_leaf(checkers[-1])).state is GOOD


@pytest.mark.parametrize("policy", [AUTO, ALL])
@pytest.mark.parametrize("turn", range(0, 60, 3))
async def test_cancelled_after_so_many_turns(policy: RevocationPolicy, turn: int) -> None:
    """The caller awaits once; the tasks that ask, many times."""
    async with lab() as one:
        one.site.pages["/ocsp"] = Page(status=500)
        checker = RevocationChecker(RevocationOptions(policy=policy))
        caller = asyncio.create_task(one.check(checker))
        await turns(turn)
        caller.cancel()
        await asyncio.wait([caller])
        one.site.pages["/ocsp"] = one.authority.answer
        if not caller.cancelled():
            return
        # What was cancelled has left nothing behind, except perhaps that the responder failed.
        assert (await one.of_leaf(checker)).state in ({GOOD} if policy is AUTO else {GOOD, UNKNOWN})


@pytest.mark.parametrize("policy", ASKING)
async def test_nothing_goes_on_after_the_last_caller_was_cancelled(policy: RevocationPolicy) -> None:
    """The deadline is far away, so only cancelling closes the connections to the site."""
    async with lab() as one:
        for path in ("/ocsp", "/ca.crl", "/root", "/root.crl"):
            one.break_(path)
        checker = RevocationChecker(RevocationOptions(policy=policy, deadline=100))
        callers = [asyncio.create_task(one.check(checker)) for _ in range(2)]
        await until(lambda: len(one.site.requests) >= 2)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        assert all(caller.cancelled() for caller in callers)
        await until(lambda: not one.site.connections)


async def test_others_get_their_answer_when_one_is_cancelled() -> None:
    async with lab() as one:
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            arrived.set()
            await go_on.wait()
            body = one.authority.crl()
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()

        one.break_("/ca.crl", wait)
        checker = RevocationChecker(RevocationOptions(policy=CRL))
        first, second = (asyncio.create_task(one.check(checker)) for _ in range(2))
        await arrived.wait()
        first.cancel()
        await asyncio.wait([first])
        go_on.set()
        assert states(await second) == [GOOD, GOOD]
        assert one.site.paths().count("/ca.crl") == 1
