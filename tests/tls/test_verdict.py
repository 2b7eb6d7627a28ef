"""The verdict on a server: one table, for OpenSSL, after the handshake, behind STARTTLS and on resumed sessions."""

from __future__ import annotations

import asyncio
import pickle
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cryptography import x509

from smtp_async import (
    ChainProblem,
    ChainResult,
    ChainValidation,
    ProxyOptions,
    ProxyType,
    RevocationOptions,
    ServerAuthentication,
    Timeouts,
    TrustOptions,
)
from smtp_async.connection.channel import Channel
from smtp_async.connection.opening import open_channel
from smtp_async.connection.route import Route, SharedResources
from smtp_async.errors import CertificateRejected, ChainInvalid, ChainNotFound, Timeout, TLSError
from smtp_async.hooks import Hooks
from smtp_async.protocol.machine import ClientProtocol
from smtp_async.tls import Security, TLSOptions, make_context, verdict
from smtp_async.tls.revocation_options import RevocationState, RevocationStatus
from smtp_async.tls.verdict import Server, judge_server
from tests.tls.authority import (
    DAY,
    NOW,
    Entity,
    intermediate,
    make,
    root,
)
from tests.tls.cases import (
    CASES,
    NONE,
    PLAIN,
    UNTRUSTED,
    Case,
    P,
    accept,
    authority,
    below,
    fail,
    forged,
    leaf,
    no_opinion,
    refuse,
    wrong_everything,
)
from tests.tls.smtp_server import SMTPServer, begin_session, connect, has_resumed, served, timeless
from tests.transport.lab import MANNERS, cancelled_everywhere, serving

WAYS = ["within the handshake", "implicit", "STARTTLS", "resumed"]


def options_for(case: Case, shown: Entity, way: str) -> TLSOptions:
    settings = case.settings(shown)
    if way != "within the handshake" and not settings and case.policy is None:
        # A setting that changes nothing: the chain is judged after the handshake.
        settings = {"blocked": [make("Blocked").certificate]}
    return TLSOptions(
        trust=TrustOptions(ca=[root().certificate], **settings),
        server_hostname=case.name,
        authenticate_server=case.policy,
    )


@pytest.mark.parametrize(
    ("name", "way"), [(name, way) for name in CASES for way in WAYS if name in PLAIN or way != WAYS[0]]
)
def test_the_table(run: Any, name: str, way: str) -> None:
    case = CASES[name]

    async def scenario() -> None:
        shown = case.shows()
        security = Security.STARTTLS if way == "STARTTLS" else Security.IMPLICIT
        server = SMTPServer(shown.server_context(), security)
        async with serving(server) as listening:
            options, shared = options_for(case, shown, way), timeless()
            if way == "resumed":
                await begin_session(listening.port, shared, options, shown.certificate, security)
                server.seen.clear()
            if case.error is None:
                channel = await connect(listening.port, shared, options, security)
                validation = channel.info.validation if channel.info else None
                assert channel.info is not None and validation is not None
                assert channel.info.session_resumed is (way == "resumed")
                assert channel.info.verified is (True if case.verified is None else case.verified)
                assert validation.status == "OK" and validation.accepted
                assert bytes(server.seen).startswith(b"EHLO me.test\r\n")
            else:
                with pytest.raises(TLSError, match=case.says) as caught:
                    await connect(listening.port, shared, options, security)
                assert type(caught.value) is case.error
                assert type(pickle.loads(pickle.dumps(caught.value))) is case.error
                validation = caught.value.validation  # type: ignore[assignment]
                await listening.quiet()
                assert server.seen == b""
            if case.policy is not fail:
                assert validation is not None
                assert validation.problems == case.problems
            if way == "resumed":
                assert await has_resumed(listening.port, shared, options)

    run(scenario())


# --- the policy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("subject", "CN=Server"),
        ("issuer", "CN=Intermediate"),
        ("chain", ["CN=Server", "CN=Intermediate", "CN=Root"]),
        ("status", "set TLSOptions.server_hostname"),
    ],
)
def test_a_question_tells(run: Any, attribute: str, said: Any) -> None:
    asked: list[ServerAuthentication] = []

    def ask(question: ServerAuthentication) -> bool:
        asked.append(question)
        return True

    async def scenario() -> None:
        _, serve = served(below(intermediate(), names=["other.example"]))
        async with serve as listening:
            options = TLSOptions(
                trust=TrustOptions(ca=[root().certificate]),
                server_hostname="localhost",
                authenticate_server=ask,
            )
            await connect(listening.port, SharedResources(), options, Security.IMPLICIT)

    run(scenario())
    found = getattr(asked[0], attribute)
    if attribute == "chain":
        found = [one.subject for one in found]
    assert found.endswith(said) if attribute == "status" else found == said


def test_what_a_policy_is_asked(run: Any) -> None:
    asked: list[ServerAuthentication] = []

    async def ask(question: ServerAuthentication) -> bool:
        asked.append(question)
        return True

    async def scenario() -> None:
        shown = below(intermediate(), names=["other.example"])
        _, serve = served(shown)
        async with serve as listening:
            options = TLSOptions(
                trust=TrustOptions(ca=[root().certificate]),
                server_hostname="localhost",
                authenticate_server=ask,
            )
            channel = await connect(listening.port, SharedResources(), options, Security.IMPLICIT)
        (question,) = asked
        assert question.host == "localhost"
        assert (question.subject, question.issuer) == ("CN=Server", "CN=Intermediate")
        assert [one.subject for one in question.chain] == ["CN=Server", "CN=Intermediate", "CN=Root"]
        assert question.certificate is not None and question.certificate.der == shown.der
        assert question.problems == P.HOST_NAME
        assert question.status.endswith("or set TLSOptions.server_hostname")
        assert question.validation.result is ChainResult.INVALID
        assert not question.session_resumed
        assert channel.info is not None and channel.info.validation is not None
        assert channel.info.validation.result is ChainResult.VALID
        assert channel.info.validation.log[-1] == "authenticate_server accepted the certificate"

    run(scenario())


def test_a_policy_is_asked_about_resumed_sessions(run: Any) -> None:
    asked: list[bool] = []

    def ask(question: ServerAuthentication) -> None:
        asked.append(question.session_resumed)
        assert question.status == "OK"

    async def scenario() -> None:
        _, serve = served(leaf())
        async with serve as listening:
            options = TLSOptions(
                trust=TrustOptions(ca=[root().certificate]),
                server_hostname="localhost",
                authenticate_server=ask,
            )
            shared = SharedResources()
            for _ in range(2):
                await connect(listening.port, shared, options, Security.IMPLICIT)
        assert asked == [False, True]

    run(scenario())


def test_what_a_policy_raises_is_chained(run: Any) -> None:
    async def scenario() -> None:
        _, serve = served(leaf())
        async with serve as listening:
            options = options_for(CASES["policy that fails"], leaf(), "implicit")
            with pytest.raises(CertificateRejected) as caught:
                await connect(listening.port, SharedResources(), options, Security.IMPLICIT)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    run(scenario())


@pytest.mark.parametrize("security", [Security.IMPLICIT, Security.OPPORTUNISTIC])
def test_the_time_of_a_policy_is_that_of_the_handshake(run: Any, security: Security) -> None:
    async def sleep(question: ServerAuthentication) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        server, serve = served(leaf(), security)
        async with serve as listening:
            options = replace(
                options_for(CASES["policy without opinion"], leaf(), ""), authenticate_server=sleep
            )
            route = Route(
                host="127.0.0.1", port=listening.port, security=security, tls=options, hello="me.test"
            )
            channel = Channel(1, ClientProtocol(), Timeouts(tls=1.0), Hooks())
            with pytest.raises(Timeout, match="was not verified within the time of the handshake") as caught:
                await open_channel(channel, route, SharedResources())
            assert caught.value.stage == "tls"
            # OPPORTUNISTIC does not go on in clear.
            assert not channel.handshake_failed
            await listening.quiet()
            assert server.seen == b""

    run(scenario())


@pytest.mark.parametrize(("manner", "moment"), MANNERS)
def test_cancelled_anywhere(run: Any, manner: Any, moment: Any) -> None:
    async def ask(question: ServerAuthentication) -> bool:
        await asyncio.sleep(0)
        return True

    async def scenario() -> None:
        server, serve = served(leaf())
        async with serve as listening:
            options = replace(
                options_for(CASES["accepted by the policy"], leaf(), ""), authenticate_server=ask
            )
            shared = SharedResources()
            await shared.context(options, verify=True)

            async def attempt() -> None:
                await connect(listening.port, shared, options, Security.IMPLICIT)

            async for step in cancelled_everywhere(attempt, manner, moment):
                await listening.quiet()
                if step.injected:
                    server.seen.clear()
            assert server.seen.startswith(b"EHLO")

    run(scenario())


# --- what else follows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["blocked", "pinned to another", "refused by the policy", "policy that fails"]
)
def test_opportunistic_does_not_speak_with_a_forbidden_server(run: Any, name: str) -> None:
    """Not even in clear, as it does after other handshakes that fail."""
    case = CASES[name]

    async def scenario() -> None:
        shown = case.shows()
        server, serve = served(shown, Security.OPPORTUNISTIC)
        async with serve as listening:
            options = options_for(case, shown, "")
            channel = Channel(1, ClientProtocol(), Timeouts(), Hooks())
            route = Route(
                host="127.0.0.1",
                port=listening.port,
                security=Security.OPPORTUNISTIC,
                tls=options,
                hello="me.test",
            )
            with pytest.raises(CertificateRejected):
                await open_channel(channel, route, SharedResources())
            assert not channel.handshake_failed
            await listening.quiet()
            assert server.seen == b""

    run(scenario())


@pytest.mark.parametrize("name", ["expired", "unknown authority", "everything at once"])
def test_opportunistic_goes_on_and_tells(run: Any, name: str) -> None:
    case = CASES[name]

    async def scenario() -> None:
        shown = case.shows()
        server, serve = served(shown, Security.OPPORTUNISTIC)
        async with serve as listening:
            options = options_for(case, shown, "")
            channel = await connect(listening.port, SharedResources(), options, Security.OPPORTUNISTIC)
            info = channel.info
            assert info is not None and info.validation is not None
            assert info.validation.problems == case.problems
            assert info.verified is False and not info.validation.accepted
            assert server.seen.startswith(b"EHLO")

    run(scenario())


def test_each_connection_that_is_not_validated_is_warned_of(
    run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        _, serve = served(wrong_everything())
        async with serve as listening:
            options = TLSOptions(trust=TrustOptions(validate=False))
            for _ in range(2):
                await connect(listening.port, SharedResources(), options, Security.IMPLICIT)
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
        assert "is not verified, because of TrustOptions(validate=False)" in caplog.text

    run(scenario())


def test_the_context_of_an_application_decides_and_a_policy_may_refuse(run: Any) -> None:
    async def scenario() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=root().pem.decode())
        for policy, passes in ((refuse, False), (accept, True), (no_opinion, True)):
            _, serve = served(leaf())
            async with serve as listening:
                options = TLSOptions(
                    context=context,
                    server_hostname="localhost",
                    authenticate_server=policy,
                    session_reuse=False,
                )
                if passes:
                    channel = await connect(listening.port, SharedResources(), options, Security.IMPLICIT)
                    assert channel.info is not None and channel.info.verified is True
                else:
                    with pytest.raises(CertificateRejected, match="authenticate_server refused"):
                        await connect(listening.port, SharedResources(), options, Security.IMPLICIT)

    run(scenario())


def test_what_a_refusing_context_of_an_application_trusts(run: Any) -> None:
    """A chain that OpenSSL has refused is judged by what that context trusts, not by what the system does."""

    async def scenario() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=UNTRUSTED.pem.decode())
        _, serve = served(leaf(names=["other.example"]))
        async with serve as listening:
            options = TLSOptions(context=context, server_hostname="localhost")
            with pytest.raises(ChainNotFound, match="CN=Root") as caught:
                await connect(listening.port, SharedResources(), options, Security.IMPLICIT)
            assert caught.value.validation is not None
            assert caught.value.validation.problems == P.UNKNOWN_AUTHORITY | P.HOST_NAME

    run(scenario())


def test_a_resumed_session_of_an_applications_context_stays_verified(run: Any) -> None:
    async def scenario() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=root().pem.decode())
        _, serve = served(leaf())
        async with serve as listening:
            options = TLSOptions(context=context, server_hostname="localhost", authenticate_server=no_opinion)
            shared = SharedResources()
            infos = [
                (await connect(listening.port, shared, options, Security.IMPLICIT)).info for _ in range(3)
            ]
        assert [info.session_resumed for info in infos if info] == [False, True, True]
        assert all(info and info.verified for info in infos)

    run(scenario())


@pytest.mark.parametrize("ignore", [P.NESTED_TIMES, P(0)])
def test_times_that_are_not_nested_may_be_ignored(run: Any, ignore: P) -> None:
    async def scenario() -> None:
        shown = below(authority(usage=["key_cert_sign"], end=NOW + 5 * DAY))
        _, serve = served(shown)
        async with serve as listening:
            # OpenSSL does not look for it; a blocked certificate has the chain judged afterwards.
            trust = TrustOptions(
                ca=[root().certificate],
                tolerate_minor=False,
                ignore=ignore,
                blocked=[UNTRUSTED.certificate],
            )
            options = TLSOptions(trust=trust, server_hostname="localhost")
            if ignore:
                await connect(listening.port, SharedResources(), options, Security.IMPLICIT)
            else:
                with pytest.raises(ChainInvalid) as caught:
                    await connect(listening.port, SharedResources(), options, Security.IMPLICIT)
                assert caught.value.validation is not None
                assert P.NESTED_TIMES in caught.value.validation.problems

    run(scenario())


def test_formal_faults_count_if_wanted(run: Any) -> None:
    """OpenSSL and this library look for the same."""

    async def scenario() -> None:
        shown = below(authority(usage=["key_cert_sign"], end=NOW + 5 * DAY), identifiers=False)
        choices: list[dict[str, Any]] = [{}, {"blocked": [UNTRUSTED.certificate]}]
        for settings in choices:
            _, serve = served(shown)
            async with serve as listening:
                trust = TrustOptions(ca=[root().certificate], tolerate_minor=False, **settings)
                options = TLSOptions(trust=trust, server_hostname="localhost")
                with pytest.raises(ChainInvalid, match="does not name the key of its issuer") as caught:
                    await connect(listening.port, SharedResources(), options, Security.IMPLICIT)
                assert caught.value.validation is not None
                assert caught.value.validation.problems == P.NESTED_TIMES | P.MINOR
                tolerant = replace(options, trust=replace(trust, tolerate_minor=True))
                await connect(listening.port, SharedResources(), tolerant, Security.IMPLICIT)

    run(scenario())


# --- revocation ------------------------------------------------------------------------------------------------


@dataclass
class Checker:
    """Tells what it was made with, and keeps what it was asked."""

    states: Sequence[RevocationStatus]
    hard_fail: bool = False
    asked: list[Any] = field(default_factory=list)

    @property
    def options(self) -> RevocationOptions:
        return RevocationOptions(hard_fail=self.hard_fail)

    async def check(self, path: Any, *, peer_address: Any, now: Any) -> Sequence[RevocationStatus]:
        self.asked.append(([one.subject for one in path], peer_address))
        await asyncio.sleep(0)
        return self.states


GOOD = RevocationStatus(state=RevocationState.GOOD, text="it is good")
REVOKED = RevocationStatus(state=RevocationState.REVOKED, text="it was revoked on Monday")
UNKNOWN = RevocationStatus(state=RevocationState.UNKNOWN, text="it is not known")


@pytest.mark.parametrize(
    ("states", "hard_fail", "problems"),
    [
        ([GOOD, GOOD], True, NONE),
        ([REVOKED, GOOD], False, P.REVOKED),
        ([GOOD, REVOKED], False, P.REVOKED),
        ([UNKNOWN, UNKNOWN], False, NONE),
        ([UNKNOWN, GOOD], True, P.UNKNOWN_REVOCATION),
        ([GOOD, UNKNOWN], True, P.UNKNOWN_AUTHORITY_REVOCATION),
    ],
)
def test_revocation(
    run: Any, states: list[RevocationStatus], hard_fail: bool, problems: ChainProblem
) -> None:
    async def scenario() -> None:
        checker = Checker(states, hard_fail)
        found = await judged(below(intermediate()), checker)
        assert found.problems == problems
        assert found.revocation == tuple(states)
        assert checker.asked == [(["CN=Server", "CN=Intermediate", "CN=Root"], ("192.0.2.1", 25))]

    run(scenario())


async def judged(shown: Entity, checker: Checker, **settings: Any) -> ChainValidation:
    trust = TrustOptions(ca=[root().certificate], blocked=[UNTRUSTED.certificate], **settings)
    options = TLSOptions(trust=trust)
    server = Server("mail.example:25", "localhost", shown.ders, ("192.0.2.1", 25))
    return await judge_server(server, make_context(options), options, ChainValidation(), checker)


def test_the_state_of_a_certificate_that_must_be_stapled_must_be_known(run: Any) -> None:
    async def scenario() -> None:
        feature = x509.TLSFeature([x509.TLSFeatureType.status_request])
        shown = below(intermediate(), others=[(feature, False)])
        assert (await judged(shown, Checker([UNKNOWN, GOOD]))).problems == P.UNKNOWN_REVOCATION
        assert (await judged(shown, Checker([GOOD, UNKNOWN]))).problems == NONE

    run(scenario())


def test_an_unknown_state_may_be_ignored_and_a_revoked_one_not(run: Any) -> None:
    async def scenario() -> None:
        every = P.UNKNOWN_REVOCATION | P.UNKNOWN_AUTHORITY_REVOCATION | P.UNKNOWN_ROOT_REVOCATION
        found = await judged(below(intermediate()), Checker([UNKNOWN, UNKNOWN], True), ignore=every)
        assert found.accepted and not found.verified
        assert not (await judged(below(intermediate()), Checker([REVOKED, GOOD]), ignore=every)).accepted

    run(scenario())


@pytest.mark.parametrize("shows", [lambda: leaf(UNTRUSTED), forged, lambda: below(UNTRUSTED)])
def test_the_revocation_of_untrusted_chains_is_not_asked(run: Any, shows: Any) -> None:
    async def scenario() -> None:
        checker = Checker([])
        await judged(shows(), checker)
        assert checker.asked == []

    run(scenario())


def test_the_address_of_a_proxy_does_not_count_as_that_of_the_server(run: Any) -> None:
    """A server behind it could otherwise name private addresses, because the proxy has one."""

    async def scenario() -> None:
        checker = Checker([])
        shared = Checked(checker)
        server, serve = served(leaf())
        async with serve as listening, serving(tunnel) as near:
            revocation = RevocationOptions()
            trust = TrustOptions(ca=[root().certificate], revocation=revocation)
            options = TLSOptions(trust=trust, server_hostname="localhost", session_reuse=False)
            proxy = ProxyOptions(type=ProxyType.HTTP_CONNECT, host="127.0.0.1", port=near.port)
            await connect(listening.port, shared, options, Security.IMPLICIT, proxies=(proxy,))
            await connect(listening.port, shared, options, Security.IMPLICIT)
            (_, behind), (_, direct) = checker.asked
            assert behind is None
            assert direct == ("127.0.0.1", listening.port)

    run(scenario())


class Checked(SharedResources):
    """What connections share, with another way to find out about revocation."""

    def __init__(self, checker: Checker) -> None:
        super().__init__()
        self.checker = checker

    def revocation(self, options: TLSOptions) -> Any:
        return self.checker


async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer CONNECT, and pass on the bytes of both sides."""
    head = await reader.readuntil(b"\r\n\r\n")
    host, _, port = head.split()[1].decode().rpartition(":")
    far_reader, far_writer = await asyncio.open_connection(host, int(port))
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                target.write(data)
        except ConnectionError:
            pass
        finally:
            target.close()

    await asyncio.gather(pass_on(reader, far_writer), pass_on(far_reader, writer))


def test_what_another_context_trusts_is_read_in_a_thread(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain that has cost little under one context has what the next one trusts read all the same."""
    main = threading.get_ident()
    where: list[bool] = []
    judge = verdict.judge

    def watched(*args: Any, **kwargs: Any) -> ChainValidation:
        where.append(threading.get_ident() == main)
        return judge(*args, **kwargs)

    monkeypatch.setattr(verdict, "judge", watched)

    async def scenario() -> None:
        shown = below(intermediate())
        trust = TrustOptions(
            ca=[root().certificate], blocked=[UNTRUSTED.certificate], shared_system_store=False
        )
        options = TLSOptions(trust=trust)
        server = Server("mail.example:25", "localhost", shown.ders)
        context = make_context(options)
        while not (where and where[-1]):
            await judge_server(server, context, options, ChainValidation())
            assert len(where) < 50
        await judge_server(server, make_context(options), options, ChainValidation())
        assert where[-1] is False

    run(scenario())
