"""The table of docs/how-to/tls-problems.md, with the sentences that the library says today.

    python -m tests.tls.page

rewrites the tables between `<!-- sentences: name -->` and `<!-- end -->` in place.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from smtp_async import ChainValidation, RevocationOptions, TrustOptions
from smtp_async.errors import SMTPError
from smtp_async.tls import TLSOptions, make_context
from smtp_async.tls.context import reference_name
from smtp_async.tls.revocation_options import RevocationState, RevocationStatus
from smtp_async.tls.verdict import Server, error_for, judge_server
from tests.tls.authority import Entity, intermediate, make, root
from tests.tls.cases import CASES, Case, below

PAGE: Final = Path(__file__).parents[2] / "docs" / "how-to" / "tls-problems.md"
BLOCK: Final = re.compile(r"(<!-- sentences: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

#: By table: the case, and what to do about it.
ADVICE: Final[dict[str, dict[str, str]]] = {
    "certificate": {
        "expired": "The server's administrator renews the certificate. Until then, if you must: "
        "`ignore=ChainProblem.TIME`.",
        "not yet valid": "Compare the clocks of both machines first; the message names this machine's.",
        "wrong host": "Connect to one of the names that are listed, or set `TLSOptions(server_hostname=…)` to the one "
        "that you mean.",
        "wildcard two deep": "A wildcard stands for one label. The certificate needs the name itself.",
        "common name only": "The certificate needs a subject alternative name: common names do not count (RFC 9525).",
        "address as host name": "The certificate holds the address as text in a DNS name. It needs an entry of the "
        "kind `IP`, or connect by name.",
        "another international name": "Names are compared in the form in which DNS has them (`xn--…`).",
        "for clients": "The server shows a certificate for clients. Its administrator chooses another one.",
        "key for other things": "The authority has to issue a certificate whose key usage has `digitalSignature`.",
        "weak key": "The server needs a new key: RSA of 2048 bits or more, or an elliptic curve. "
        "`TLSProfile.COMPATIBLE` takes RSA of 1024 bits.",
        "SHA-1": "The authority has to issue the certificate anew. `legacy_context()` takes it.",
        "unknown critical extension": "The certificate is made for another purpose, or newer than this library.",
    },
    "chain": {
        "self-signed": "If it is the right certificate, `trusted=[Certificate.load(…)]` or `ca_file`. "
        "`accepted=[…]` also overlooks name and dates.",
        "unknown authority": "A private authority: give its certificate, `ca=[Certificate.load(…)]` or `ca_file`; with "
        "`use_system=True` besides those of the system.",
        "unknown authority that is sent": "As above: the last certificate of the chain is the one to trust.",
        "missing intermediate": "The server does not send the certificate of the authority between its own and the "
        "trusted one. Its administrator adds it to the file; meanwhile `known=[…]` helps to find the way.",
        "broken chain": "The server was given the certificate of another authority of the same name, or is not the "
        "server that it says it is.",
        "intermediate expired": "The server's administrator installs the authority's new certificate.",
        "issuer that is no authority": "Do not connect: the holder of a certificate for one server has made one for "
        "another.",
        "path length": "The authority above has forbidden that. The server needs another certificate.",
        "name constraints": "The authority may issue only for the names in its constraints. The server needs another "
        "certificate.",
        "circle": "The server's file holds certificates that lead nowhere. Its administrator takes the authority's.",
    },
    "options": {
        "pinned to another": "After a renewal: compare the fingerprint over another channel, and add it to `pins`. Pin "
        "the authority's key, or two keys, so that a renewal breaks nothing.",
        "blocked": "The application has asked for it, with `blocked`.",
        "refused by the policy": "The application has asked for it, with `authenticate_server`.",
        "policy that fails": "The exception of `authenticate_server` is the error's `__cause__`.",
        "too long a value": "`max_asn1_length` and `max_asn1_depth` bound what a certificate may cost to read.",
    },
    "revocation": {
        "revoked": "The server's administrator replaces the certificate: its key may be known to others.",
        "unknown": "Is the responder reachable from here? `hard_fail=False` goes on without an answer, "
        "`ignore=ChainProblem.UNKNOWN_REVOCATION` only for the server's certificate.",
    },
}


@dataclass
class _Checker:
    """Says what the check of revocation would say."""

    states: Sequence[RevocationStatus]
    options: RevocationOptions = field(default_factory=lambda: RevocationOptions(hard_fail=True))

    async def check(self, path: Any, *, peer_address: Any, now: Any) -> Sequence[RevocationStatus]:
        return self.states


_GOOD = RevocationStatus(state=RevocationState.GOOD, text="")
_STATES: Final = {
    "revoked": RevocationStatus(
        state=RevocationState.REVOKED,
        text="CN=Server was revoked on … (a compromised key), says http://ocsp.example/",
    ),
    "unknown": RevocationStatus(
        state=RevocationState.UNKNOWN,
        text="whether CN=Server was revoked is not known: http://ocsp.example/ cannot be reached",
    ),
}


def sentence_of(name: str) -> str:
    """Return what the error says, with what differs from run to run left out."""
    if name in _STATES:
        said = _said(Case(lambda: below(intermediate())), _Checker([_STATES[name], _GOOD]))
    else:
        said = _said(CASES[name])
    said = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "…", said)
    return re.sub(r"[0-9a-f]{64}", "9f86…", said)


def _said(case: Case, checker: Any = None) -> str:
    shown = case.shows()
    settings = case.settings(shown) or {"blocked": [make("Blocked").certificate]}
    options = TLSOptions(
        trust=TrustOptions(ca=[root().certificate], **settings),
        server_hostname=case.name,
        authenticate_server=case.policy,
    )
    try:
        return str(error_for(asyncio.run(_judged(shown, options, checker))))
    except SMTPError as error:
        return str(error)


async def _judged(shown: Entity, options: TLSOptions, checker: Any) -> ChainValidation:
    server = Server("mail.example:465", reference_name("", options), shown.ders)
    return await judge_server(server, make_context(options), options, ChainValidation(), checker)


def table(name: str) -> str:
    """Return a table of sentences and advice."""
    lines = ["| the error says | what to do |", "|---|---|"]
    lines += [f"| {sentence_of(case).replace('|', '')} | {advice} |" for case, advice in ADVICE[name].items()]
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """Return the page with its tables written anew."""
    return BLOCK.sub(lambda found: found[1] + table(found[2]) + found[3], text)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
