"""What a check has found, as labelled lines, as a tree of certificates, and as JSON."""

import json
import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from smtp_async import (
    ChainProblem,
    ChainValidation,
    ConnectionInfo,
    Extensions,
    Reply,
    RevocationState,
    RevocationStatus,
    Security,
    ServerReport,
    errors,
)
from smtp_async.cli.report import as_object, chain_of, rows_after_chain, rows_before_chain
from smtp_async.tls.problems import Fault

DAY = timedelta(days=1)
OFFER = Extensions({"PIPELINING": "", "SIZE": "1000", "AUTH": "PLAIN LOGIN"}, domain="mx.test")


def certificate(*names: str, begins: timedelta = -DAY, ends: timedelta = 100 * DAY) -> bytes:
    now = datetime.now(UTC)
    leaf = trustme.CA().issue_cert(*names, not_before=now + begins, not_after=now + ends)
    return ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())


def encrypted(*chain: bytes, **changes: object) -> ConnectionInfo:
    facts: dict[str, object] = {
        "host": "mx.test",
        "encrypted": True,
        "tls_version": "TLSv1.3",
        "suite": "TLS_AES_256_GCM_SHA384",
        "bits": 256,
        "verified": True,
        "chain": chain,
    }
    return ConnectionInfo(**{**facts, **changes})  # type: ignore[arg-type]


def report(**fields: object) -> ServerReport:
    return ServerReport(server="mx.test:587", **fields)  # type: ignore[arg-type]


# --- lines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("security", "words"),
    [
        (Security.IMPLICIT, "none, although wanted from the first byte"),
        (Security.STARTTLS, "none, although required by STARTTLS"),
        (Security.OPPORTUNISTIC, "none"),
        (Security.PLAINTEXT, "none, as asked for"),
    ],
)
def test_a_connection_without_tls_says_what_was_wanted(security: Security, words: str) -> None:
    for info in (None, ConnectionInfo(host="mx.test")):
        assert dict(rows_before_chain(report(security=security, info=info))) == {
            "Greeting": "none",
            "TLS": words,
        }


def test_the_parameters_of_tls() -> None:
    info = encrypted(
        key_exchange="ECDHE",
        group="x25519",
        signature_algorithm="ed25519",
        client_auth_requested=True,
    )
    found = report(security=Security.STARTTLS, info=info, greeting=Reply(220, (b"mx.test ESMTP",)))
    assert dict(rows_before_chain(found)) == {
        "Greeting": "220 mx.test ESMTP",
        "TLS": "TLSv1.3, TLS_AES_256_GCM_SHA384, 256 bits, by STARTTLS",
        "Keys": "ECDHE, x25519, 253 bits, forward secrecy",
        "Signed with": "ed25519",
        "Client certificate": "asked for, none was shown",
    }


def test_what_is_not_known_is_not_shown() -> None:
    rows = dict(rows_before_chain(report(security=Security.IMPLICIT, info=encrypted())))
    assert set(rows) == {"Greeting", "TLS", "Keys"}
    assert rows["TLS"].endswith("from the first byte") and rows["Keys"].startswith("unknown key exchange")


@pytest.mark.parametrize(
    ("logged_in", "words"),
    [(None, "PLAIN, LOGIN"), (True, "PLAIN, LOGIN; ours succeeded"), (False, "PLAIN, LOGIN; ours failed")],
)
def test_what_the_server_offers(logged_in: bool | None, words: str) -> None:
    rows = dict(rows_after_chain(report(info=encrypted(), extensions=OFFER, logged_in=logged_in)))
    assert rows == {"Verified": "yes", "Offers": "PIPELINING, SIZE 1000", "Login": words}
    rows = dict(
        rows_after_chain(report(info=encrypted(verified=False), extensions=Extensions({}, domain="mx")))
    )
    assert rows == {"Verified": "no", "Offers": "nothing", "Login": "not offered"}


def test_what_was_offered_before_the_check_ended_is_marked_as_such() -> None:
    assert dict(rows_after_chain(report(extensions=OFFER)))["In clear"] == "PIPELINING, SIZE 1000"
    careful = Extensions({"STARTTLS": ""}, domain="mx.test")
    assert dict(rows_after_chain(report(extensions=careful))) == {"In clear": "STARTTLS"}
    assert list(rows_after_chain(report())) == []


# --- certificates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "words", "soon"),
    [
        (100 * DAY + DAY / 2, "(100 days left)", False),
        (5 * DAY + DAY / 2, "(5 days left: renew it)", True),
        (DAY / 2, "(0 days left: renew it)", True),
        (-DAY / 2, "(expired)", True),
    ],
)
def test_when_a_certificate_ends(ends: timedelta, words: str, soon: bool) -> None:
    (node,) = chain_of(report(info=encrypted(certificate("mx.test", begins=-10 * DAY, ends=ends))))
    assert dict(node.rows)["Valid"].endswith(words) and node.ends_soon is soon


def test_many_names_are_cut() -> None:
    names = [f"mx{number}.test" for number in range(9)]
    (node,) = chain_of(report(info=encrypted(certificate(*names))))
    assert node.title == "for mx0.test, mx1.test, mx2.test, mx3.test, mx4.test, mx5.test and 3 more"


def test_a_chain_that_cannot_be_read_is_that_of_the_failed_handshake() -> None:
    from smtp_async.tls.certificate import Certificate

    shown = Certificate(certificate("mx.test"))
    for info in (None, encrypted(b"no certificate")):
        (node,) = chain_of(report(info=info, certificate=shown))
        assert node.title == "for mx.test"
    assert chain_of(report()) == []


# --- JSON ----------------------------------------------------------------------------------------------------


def test_a_program_gets_all_of_it() -> None:
    found = json.loads(
        json.dumps(as_object(report(info=encrypted(certificate("mx.test")), extensions=OFFER)))
    )
    assert (found["server"], found["ok"], found["error"], found["findings"]) == (
        "mx.test:587",
        True,
        None,
        [],
    )
    assert found["tls"]["suite"] == "TLS_AES_256_GCM_SHA384" and found["tls"]["group"] is None
    assert found["extensions"]["SIZE"] == "1000" and found["auth"] == ["PLAIN", "LOGIN"]
    (chain,) = found["chain"]
    assert chain["names"] == ["mx.test"] and chain["days_left"] == 99


def test_a_program_gets_the_number_of_an_error() -> None:
    error = errors.ConnectionLost("gone")
    found = json.loads(json.dumps(as_object(report(error=error, findings=("gone",)))))
    assert found["ok"] is False and found["tls"] is None and found["greeting"] is None
    assert found["error"] == {"code": error.code, "text": "gone"} and found["findings"] == ["gone"]


# --- trust -----------------------------------------------------------------------------------------------------


def judged(**fields: object) -> ServerReport:
    shown = certificate("mx.test")
    validation = ChainValidation(path_der=(shown,), **fields)  # type: ignore[arg-type]
    return report(info=encrypted(shown, verified=validation.verified, validation=validation))


def test_problems_stand_below_their_certificates() -> None:
    fault = Fault(ChainProblem.HOST_NAME, "it is another one: give it as TrustOptions(ca_file=…)")
    (node,) = chain_of(judged(faults=(fault,)))
    assert node.rows[-1] == ("Problem", "it is another one: give it with --ca-file FILE")
    assert dict(rows_after_chain(judged(faults=(fault,))))["Verified"] == "no"
    excused = judged(faults=(fault,), excused=ChainProblem.HOST_NAME)
    assert dict(rows_after_chain(excused))["Verified"] == "no, but accepted as you asked"


def test_the_state_of_revocation_stands_there_too() -> None:
    status = RevocationStatus(state=RevocationState.GOOD, text="it is good")
    found = judged(revocation=(status,))
    assert chain_of(found)[0].rows[-1] == ("Revocation", "it is good")
    assert as_object(found)["validation"]["revocation"] == [{"state": "good", "text": "it is good"}]


def test_what_a_failed_handshake_has_shown() -> None:
    error = errors.ChainInvalid("it is broken")
    fault = Fault(ChainProblem.WEAK, "it is weak")
    error.validation = ChainValidation(path_der=(certificate("mx.test"),), faults=(fault,))
    (node,) = chain_of(report(error=error))
    assert node.rows[-1] == ("Problem", "it is weak")
    assert as_object(report(error=error))["validation"]["result"] == "INVALID"
