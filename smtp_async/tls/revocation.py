"""Whether the certificates of a server were revoked (RFC 5280 section 6.3, RFC 6960).

Every certificate of a path except the last is asked about separately, all at the same time, and once at a time for all
connections of a client. Evidence that the application has comes first, then OCSP responders and CRLs in the order
of the policy. A definite answer is kept as long as it is valid. Whatever goes wrong becomes `UNKNOWN` with a sentence;
what that means for the connection, the caller decides.

Under soft fail, what could not be found out is not asked for again for an hour, so that a responder that is down costs
a connection its deadline, and the ones after it nothing. Under hard fail every connection asks again, because it cannot
be opened without an answer.

Stapled OCSP responses are not looked at: Python's `ssl` neither asks for them nor shows them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from ..model.reply import printable
from .address_kinds import AddressKind, allowed_kinds
from .expiring_cache import ExpiringCache
from .fetching import Fetcher, Request
from .revocation_options import RevocationOptions, RevocationPolicy, RevocationState, RevocationStatus
from .revocation_proofs import Finding, Sources, judge_crls, judge_ocsp, ocsp_request, sources_of
from .single_flight import Flight, SingleFlight

if TYPE_CHECKING:
    from ..transport.stream import Endpoint
    from .certificate import Certificate

__all__ = ["RevocationChecker"]

#: How long a source that failed, or a certificate without an answer, is left alone under soft fail.
_PAUSE: Final = timedelta(hours=1)
#: Fetches get this part of the deadline, so that their reasons arrive before it.
_FOR_FETCHING: Final = 0.95
#: How many answers are kept.
_ANSWERS: Final = 256
_URL_SHOWN: Final = 120


class _Kind(Enum):
    OCSP = "OCSP responder"
    CRL = "CRL"


class _Plan(NamedTuple):
    """The order of sources, and how much of the deadline one has before the next is asked, too."""

    kinds: tuple[_Kind, ...]
    head_start: float = 0.0


_PLANS: Final = {
    RevocationPolicy.AUTO: _Plan((_Kind.OCSP, _Kind.CRL), 0.1),
    RevocationPolicy.CRL: _Plan((_Kind.CRL,)),
    RevocationPolicy.OCSP: _Plan((_Kind.OCSP,)),
    RevocationPolicy.CRL_THEN_OCSP: _Plan((_Kind.CRL, _Kind.OCSP), 0.5),
    RevocationPolicy.OCSP_THEN_CRL: _Plan((_Kind.OCSP, _Kind.CRL), 0.5),
    RevocationPolicy.ALL: _Plan((_Kind.OCSP, _Kind.CRL)),
}


class _Question(NamedTuple):
    """What is asked.

    Attributes:
        certificate, issuers: about which certificate, and the path above it.
        allowed: which addresses it may name.
        now, until: the time of day, and the deadline in the loop's time.
    """

    certificate: Certificate
    issuers: Sequence[Certificate]
    allowed: frozenset[AddressKind]
    now: datetime
    until: float


class _Answer(NamedTuple):
    """What a kind of source says, and which one of it."""

    finding: Finding
    source: str = ""


class RevocationChecker:
    """Asks whether certificates were revoked, and remembers the answers. One for all connections of a client.

    Args:
        options: how.
    """

    def __init__(self, options: RevocationOptions) -> None:
        self.options = options
        self._pause = timedelta(0) if options.hard_fail else _PAUSE
        self._fetcher = Fetcher(
            limit=options.max_size, pause=self._pause.total_seconds(), user_agent=options.user_agent
        )
        self._flights: SingleFlight[object, RevocationStatus] = SingleFlight()
        self._known: ExpiringCache[RevocationStatus] = ExpiringCache(_ANSWERS)

    def leave_loop(self) -> None:
        """Keep the answers, and forget the questions of an event loop that is closed: they never end."""
        self._flights = SingleFlight()

    async def check(
        self, path: Sequence[Certificate], *, peer_address: Endpoint, now: datetime
    ) -> tuple[RevocationStatus, ...]:
        """Find out whether the certificates of a path were revoked, within the deadline.

        What goes wrong is part of the result; only cancelling ends the call early.
        The URLs in the certificates are connected to, so the path must lead to a trusted certificate.

        Args:
            path: the server's certificate first; each is issued by the next, and the last is trusted.
            peer_address: the address of the mail server; None if it is not known, as behind a proxy. Certificates may
                name private addresses only if it is itself on one.
            now: the time of day, UTC.

        Returns:
            A status for each certificate except the last; nothing under `RevocationPolicy.NONE`.
        """
        if self.options.policy is RevocationPolicy.NONE:
            return ()
        until = asyncio.get_running_loop().time() + _FOR_FETCHING * self.options.deadline
        allowed = allowed_kinds(peer_address)
        found: list[RevocationStatus | Flight[RevocationStatus]] = []
        for place, certificate in enumerate(path[:-1]):
            found.append(self._begin(_Question(certificate, path[place + 1 :], allowed, now, until)))
        flights = [one for one in found if isinstance(one, Flight)]
        try:
            if flights:
                await asyncio.wait([one.task for one in flights], timeout=self.options.deadline)
        except BaseException:
            for one in flights:
                one.leave()
            raise
        # What is late goes on: it is bounded, and its answer is there for the next connection.
        return tuple(
            self._result_of(one, certificate) if isinstance(one, Flight) else one
            for one, certificate in zip(found, path, strict=False)
        )

    def _begin(self, question: _Question) -> RevocationStatus | Flight[RevocationStatus]:
        fingerprints = tuple(one.sha256 for one in (question.certificate, *question.issuers))
        key = (fingerprints, question.allowed)
        known = self._known.get(key, question.now)
        return known or self._flights.join(key, lambda: self._ask(key, question))

    def _result_of(self, flight: Flight[RevocationStatus], certificate: Certificate) -> RevocationStatus:
        if flight.task.done():
            return flight.task.result()
        return _unknown(certificate, [f"there was no answer within {self.options.deadline:g} s"])

    async def _ask(self, key: object, question: _Question) -> RevocationStatus:
        certificate, now = question.certificate, question.now
        try:
            status = await self._status(question)
        except Exception as error:  # nothing that a certificate or an answer contains may end a connection
            status = _unknown(
                certificate, [f"looking failed: {printable(f'{type(error).__name__}: {error}')}"]
            )
        if status.valid_until is not None:
            self._known.put(key, status, now, status.valid_until)
        elif self._pause:
            self._known.put(key, status, now, now + self._pause)
        return status

    async def _status(self, question: _Question) -> RevocationStatus:
        sources = sources_of(question.certificate)
        if sources.never:
            return RevocationStatus(
                state=RevocationState.GOOD,
                text=f"the issuer of {question.certificate.subject} revokes no such certificates (RFC 9608)",
                valid_until=question.certificate.not_after,
            )
        plan = _PLANS[self.options.policy]
        known = [await self._of_application(kind, question) for kind in plan.kinds]
        answers = [one for one in known if one.finding.revoked is not None]
        kinds = [kind for kind, one in zip(plan.kinds, known, strict=True) if one.finding.revoked is None]
        if self.options.policy is RevocationPolicy.ALL:
            answers += await self._all_answers(kinds, sources, question)
            silent = [one for one in answers if one.finding.revoked is None]
            revoking = [one for one in answers if one.finding.revoked]
            answers = revoking or silent or answers or [_Answer(Finding(None, _no_source(sources)))]
        elif not answers:
            ahead = plan.head_start * self.options.deadline
            answers = await self._first_answer(kinds, ahead, sources, question)
        return _conclusion(question.certificate, answers)

    async def _of_application(self, kind: _Kind, question: _Question) -> _Answer:
        """Judge the evidence of a kind that the application has."""
        if kind is _Kind.OCSP:
            finding = await self._judge(kind, self.options.responses, question)
            return _Answer(finding, "RevocationOptions.responses")
        return _Answer(await self._judge(kind, self.options.crls, question), "RevocationOptions.crls")

    async def _first_answer(
        self, kinds: Sequence[_Kind], ahead: float, sources: Sources, question: _Question
    ) -> list[_Answer]:
        """Ask one kind of source after the other until one has a definite answer.

        Args:
            kinds: in order.
            ahead: seconds after which the next kind is asked, too, if the one before has not answered.
            sources: what the certificate names.
            question: the question.
        """
        waiting = list(kinds)
        running: set[asyncio.Task[list[_Answer]]] = set()
        answers: list[_Answer] = []
        try:
            while waiting or running:
                if waiting:
                    running.add(asyncio.create_task(self._of_kind(waiting.pop(0), sources, question)))
                done, running = await asyncio.wait(
                    running, timeout=ahead if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    answers += task.result()
                if any(one.finding.revoked is not None for one in answers):
                    break
        finally:
            for task in running:
                task.cancel()
        return answers

    async def _all_answers(
        self, kinds: Sequence[_Kind], sources: Sources, question: _Question
    ) -> list[_Answer]:
        """Ask every source of these kinds that the certificate names."""
        named = [kind for kind in kinds if _urls(kind, sources)]
        tasks = [asyncio.create_task(self._of_kind(kind, sources, question, every=True)) for kind in named]
        try:
            if tasks:
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
        return [one for task in tasks for one in task.result()]

    async def _of_kind(
        self, kind: _Kind, sources: Sources, question: _Question, *, every: bool = False
    ) -> list[_Answer]:
        """Ask the sources of a kind that a certificate names, all at the same time.

        Args:
            kind: OCSP or CRLs.
            sources: what the certificate names.
            question: the question.
            every: wait for all of them; otherwise for the first definite answer.
        """
        urls = _urls(kind, sources)
        if not urls:
            return [_Answer(Finding(None, _no_source(sources, kind)))]
        running = {asyncio.create_task(self._fetched(kind, url, question)) for url in urls}
        answers: list[_Answer] = []
        lists = list(self.options.crls)
        try:
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    answers.append(await self._judge_fetched(kind, task.result(), lists, question))
                definite = [one for one in answers if one.finding.revoked is not None]
                if definite and not every:
                    return definite
        finally:
            for task in running:
                task.cancel()
        return answers

    async def _judge_fetched(
        self, kind: _Kind, fetched: tuple[str, bytes, str], lists: list[bytes], question: _Question
    ) -> _Answer:
        """Judge what came from one URL; CRLs together with the others, as each may cover some reasons only."""
        url, data, failure = fetched
        if failure:
            return _Answer(Finding(None, failure), url)
        if kind is _Kind.CRL:
            lists.append(data)
        evidence = lists if kind is _Kind.CRL else [data]
        finding = await self._judge(kind, evidence, question)
        if finding.revoked is not None and finding.until is not None:
            request = self._request(kind, url, question)
            self._fetcher.keep(request, question.allowed, data, now=question.now, until=finding.until)
        return _Answer(finding, url)

    async def _fetched(self, kind: _Kind, url: str, question: _Question) -> tuple[str, bytes, str]:
        fetched = await self._fetcher.fetch(
            self._request(kind, url, question), question.allowed, until=question.until, now=question.now
        )
        return url, fetched.data, fetched.failure

    def _request(self, kind: _Kind, url: str, question: _Question) -> Request:
        if kind is _Kind.CRL:
            return Request(url, "application/pkix-crl")
        body = ocsp_request(question.certificate, question.issuers[0], self.options.ocsp_hash)
        return Request(url, "application/ocsp-response", "application/ocsp-request", body)

    async def _judge(self, kind: _Kind, evidence: Sequence[bytes], question: _Question) -> Finding:
        """Judge evidence in a thread; OCSP responses one by one, until one is definite."""
        finding = Finding(None)
        certificate, issuers, now = question.certificate, question.issuers, question.now
        if kind is _Kind.CRL and evidence:
            return await asyncio.to_thread(judge_crls, certificate, issuers, tuple(evidence), now)
        for response in evidence:
            finding = await asyncio.to_thread(judge_ocsp, certificate, issuers, response, now)
            if finding.revoked is not None:
                break
        return finding


# --- sentences ---------------------------------------------------------------------------------------------


def _conclusion(certificate: Certificate, answers: list[_Answer]) -> RevocationStatus:
    """Return the status that follows from answers; what is revoked for one, is."""
    definite = [one for one in answers if one.finding.revoked is not None]
    if not definite:
        return _unknown(certificate, [f"{_shown(one.source)} {one.finding.why}".strip() for one in answers])
    revoking = [one for one in definite if one.finding.revoked]
    finding, source = (revoking or definite)[0]
    ends = [one.finding.until for one in definite if one.finding.until is not None]
    until = min(ends, default=None)
    if not revoking:
        text = f"{certificate.subject} is not revoked, says {_shown(source)}"
        return RevocationStatus(state=RevocationState.GOOD, text=text, source=source, valid_until=until)
    when = f" on {finding.since:%Y-%m-%d %H:%M} UTC" if finding.since else ""
    return RevocationStatus(
        state=RevocationState.REVOKED,
        text=f"{certificate.subject} was revoked{when} ({finding.reason}), says {_shown(source)}",
        reason=finding.reason,
        revoked_at=finding.since,
        source=source,
        valid_until=finding.until,
    )


def _unknown(certificate: Certificate, reasons: Sequence[str]) -> RevocationStatus:
    text = f"whether {certificate.subject} was revoked is not known: {'; '.join(dict.fromkeys(reasons))}"
    return RevocationStatus(state=RevocationState.UNKNOWN, text=text)


def _no_source(sources: Sources, kind: _Kind | None = None) -> str:
    if sources.elsewhere:
        return "the certificate names places only that are not reached with http or https"
    return f"the certificate names no {kind.value if kind else 'OCSP responder and no CRL'}"


def _shown(source: str) -> str:
    return printable(source, _URL_SHOWN)


def _urls(kind: _Kind, sources: Sources) -> tuple[str, ...]:
    return sources.ocsp if kind is _Kind.OCSP else sources.crl
