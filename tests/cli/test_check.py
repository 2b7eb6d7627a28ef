"""`smtp-async check`: the report as a beginner reads it."""

import json
import ssl
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from smtp_async import Certificate, ConnectionInfo, ServerReport
from smtp_async.cli import report
from smtp_async.testing import reply
from tests.servers.openssl_ca import openssl_authority
from tests.transport.proxy.lab import Asked, in_a_thread, socks5

from .conftest import USERS


def test_a_sound_server_has_no_findings(shell, submission, pki, password_file):
    done = shell(
        f"check localhost:{submission.port} --user ann --ca-file {pki.ca_file} --password-file", password_file
    )
    assert done.exit_code == 0 and done.stderr == ""
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert lines["Server"] == f"localhost:{submission.port}"
    assert lines["Greeting"] == "220 test.invalid ESMTP ready"
    assert lines["TLS"].startswith("TLSv1.3, ") and lines["TLS"].endswith("by STARTTLS")
    assert (
        "localhost" in lines["Certificate"] and "days left" in lines["Valid"] and lines["Verified"] == "yes"
    )
    assert "PIPELINING" in lines["Offers"] and "AUTH" not in lines["Offers"]
    assert lines["Login"] == "PLAIN, LOGIN, CRAM-MD5; ours succeeded"
    assert done.stdout.endswith("OK Nothing wrong was found.\n")


def test_a_proxy_is_named(shell, submission, pki, password_file):
    with in_a_thread(socks5(Asked())) as port:
        done = shell(
            f"check localhost:{submission.port} --user ann --ca-file {pki.ca_file} "
            f"--proxy socks5://127.0.0.1:{port} --password-file",
            password_file,
        )
        assert done.exit_code == 0 and done.stderr == ""
        assert f"Through: SOCKS5 proxy 127.0.0.1:{port}\n" in done.stdout
        done = shell(
            f"check localhost:{submission.port} --json --ca-file {pki.ca_file} --proxy http://127.0.0.1:{port}"
        )
    found = json.loads(done.stdout)
    assert found["via"] is None and "the HTTP proxy 127.0.0.1" in found["error"]["text"]


def test_verbose_shows_the_dialogue(shell, submission, pki, password_file):
    done = shell(
        f"check -v localhost:{submission.port} --user ann --ca-file {pki.ca_file} --password-file",
        password_file,
    )
    assert "> NOOP" in done.stderr and "> AUTH PLAIN ***" in done.stderr


def test_a_url_chooses_implicit_tls(shell, serve, pki):
    server = serve(ssl_context=pki.server_context(), implicit_tls=True, users=USERS)
    done = shell(f"check smtps://localhost:{server.port} --ca-file {pki.ca_file}")
    assert done.exit_code == 0 and "from the first byte" in done.stdout


def test_a_tls_port_spoken_to_in_clear_is_named(shell, serve, pki):
    server = serve(ssl_context=pki.server_context(), implicit_tls=True)
    done = shell(f"check --timeout 2 localhost:{server.port}")
    assert done.exit_code == 5 and "use --security implicit." in done.stdout
    done = shell(f"check localhost:{serve().port} --security implicit")
    assert done.exit_code == 5 and "use --security starttls" in done.stdout


def test_findings_without_an_error_exit_with_1(shell, serve):
    done = shell(f"check {serve(users=USERS).url}")
    assert done.exit_code == 1 and "WRONG A login (PLAIN, LOGIN, CRAM-MD5) is offered" in done.stdout


@pytest.mark.parametrize(("code", "text"), [(554, "5.3.2 no"), (421, "4.3.2 later")])
def test_a_refusal_at_the_greeting_is_shown(shell, serve, code, text):
    server = serve()
    server.on("GREETING", reply(code, text))
    assert shell(f"check {server.url}").exit_code == (1 if code == 554 else 3)


def test_a_closed_port_exits_with_3(shell, serve):
    server = serve()
    server.stop()
    done = shell(f"check {server.url}")
    assert done.exit_code == 3 and "WRONG Cannot connect" in done.stdout and "Greeting: none" in done.stdout


def test_the_default_port_is_587(shell):
    done = shell("check mail.invalid")
    assert done.exit_code == 5 and "Server: mail.invalid:587" in done.stdout


@pytest.mark.parametrize("host", ["smtp://ann:top-secret@localhost", "ann:top-secret@localhost"])
def test_a_password_in_an_argument_is_refused(shell, host):
    assert shell(f"check {host}").exit_code == 2


@pytest.mark.server
@pytest.mark.parametrize(
    ("server", "more", "code", "words"),
    [
        ("localhost:{0.auth_port}", "--user {0.user} --ca-file {1.ca_file}", 0, "ours succeeded"),
        ("smtps://localhost:{0.tls_port}", "--user {0.user} --ca-file {1.ca_file}", 0, "ours succeeded"),
        ("localhost:{0.auth_port}", "--user nobody --ca-file {1.ca_file}", 5, "refused the credentials"),
        (
            "localhost:{0.auth_port}",
            "--user {0.user} --ca-file {1.self_signed.certificate}",
            5,
            "--ca-file FILE",
        ),
        ("localhost:{0.starttls_port}", "--security starttls --ca-file {1.ca_file}", 1, "No login (AUTH)"),
        ("localhost:{0.plain_port}", "--security starttls", 5, "does not offer STARTTLS"),
        ("localhost:{0.plain_port}", "--security implicit", 5, "use --security starttls"),
        ("localhost:{0.tls_port}", "--security starttls", 5, "use --security implicit"),
        ("localhost:{0.bare_port}", "", 1, "STARTTLS is not offered"),
        ("localhost:{0.plain_port}", "--security plaintext", 0, "Nothing wrong"),
    ],
)
def test_findings_about_postfix(shell, postfix, pki, server, more, code, words):
    done = shell(
        f"check --timeout 5 {server} {more}".format(postfix, pki),
        env={"SMTP_ASYNC_PASSWORD": postfix.password},
    )
    assert (done.exit_code, words in done.stdout) == (code, True), done.output


def test_a_terminal_gets_a_table(shell, serve, terminal):
    server = serve(users=USERS)
    done = shell(f"check {server.url}")
    assert done.stdout.startswith(f"127.0.0.1:{server.port}\n  Greeting  220 ")
    assert "\n✗ A login (PLAIN, LOGIN, CRAM-MD5) is offered" in done.stdout
    assert "✓ Nothing wrong was found." in shell(f"check {serve().url}").stdout


# --- TLS -----------------------------------------------------------------------------------------------------


def test_the_parameters_and_the_chain_are_shown(shell, submission, pki):
    done = shell(f"check localhost:{submission.port} --ca-file {pki.ca_file}")
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert lines["Keys"] == "ECDHE, x25519, 253 bits, forward secrecy"
    assert lines["Signed with"] == "ecdsa_secp256r1_sha256"
    assert lines["Client certificate"] == "not asked for"
    assert lines["Key"] == "secp256r1, 256 bits"
    assert "Offers" in lines


def test_a_terminal_gets_the_chain_as_a_tree(shell, serve, pki, terminal):
    chained = pki.server_context()
    server = serve(ssl_context=chained, implicit_tls=True)
    done = shell(f"check smtps://localhost:{server.port} --ca-file {pki.ca_file}")
    assert "  Certificate for localhost" in done.stdout
    assert "├── Issued by" in done.stdout and "└── SHA-256" in done.stdout


def test_a_certificate_that_ends_soon_is_worth_a_word(shell, serve, tmp_path):
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", not_after=datetime.now(UTC) + timedelta(days=10)).configure_cert(
        context
    )
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = serve(ssl_context=context, implicit_tls=True)
    done = shell(f"check smtps://localhost:{server.port} --ca-file {tmp_path / 'ca.pem'}")
    assert "days left: renew it" in done.stdout and "WRONG The certificate expires in " in done.stdout


def test_issuers_stand_below_what_they_have_issued():
    der = ssl.PEM_cert_to_DER_cert
    authority = trustme.CA()
    middle = authority.create_child_ca()
    leaf = middle.issue_cert("localhost")
    pems = (*leaf.cert_chain_pems, authority.cert_pem)
    chain = tuple(der(one.bytes().decode()) for one in pems)
    info = ConnectionInfo(host="localhost", encrypted=True, chain=chain)
    nodes = report.chain_of(ServerReport(server="localhost", info=info))
    assert [node.label for node in nodes] == ["Certificate", "Issuer", "Issuer"]
    assert dict(nodes[0].rows)["Issued by"] == nodes[1].title
    assert dict(nodes[2].rows)["Issued by"] == "itself"


def test_json(shell, submission, pki):
    done = shell(f"check localhost:{submission.port} --ca-file {pki.ca_file} --json")
    found = json.loads(done.stdout)
    assert (
        found["ok"] is True and found["tls"]["tls_version"] == "TLSv1.3" and found["tls"]["verified"] is True
    )
    assert found["chain"][0]["names"] and found["chain"][0]["days_left"] > 0
    assert found["auth"] == ["PLAIN", "LOGIN", "CRAM-MD5"]


def test_json_of_a_failure(shell, serve):
    server = serve()
    server.stop()
    done = shell(f"check {server.url} --json")
    found = json.loads(done.stdout)
    assert done.exit_code == 3 and found["error"]["code"] and found["tls"] is None and found["chain"] == []


def test_versions_and_suites_can_be_chosen(shell, submission, pki):
    done = shell(
        f"check localhost:{submission.port} --ca-file {pki.ca_file} --tls-max 1.2 "
        "--ciphers TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
    )
    assert "TLSv1.2, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, 128 bits" in done.stdout
    done = shell(f"check localhost:{submission.port} --ca-file {pki.ca_file} --tls-min 1.3")
    assert "TLSv1.3" in done.stdout


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ("--ciphers NONSENSE", 5, "OpenSSL finds no cipher suite"),
        ("--tls-min 1.3 --tls-max 1.2", 2, "newer than the newest"),
        ("--tls-max 1.0", 2, "set --tls-min, too"),
        ("--tls-min 2.0", 2, ""),
        ("--key key.pem", 2, "--key needs --cert"),
        ("--cert none.pem", 5, "none.pem"),
    ],
)
def test_tls_options_that_make_no_sense(shell, options, code, words):
    done = shell(f"check mail.invalid {options}")
    assert done.exit_code == code and words in done.stderr


@pytest.mark.server
@pytest.mark.parametrize("command", ["check", "send", "process"])
@pytest.mark.parametrize("apart", [True, False])
def test_a_client_certificate_lets_in(shell, postfix, pki, command, apart, tmp_path):
    leaf = pki.client
    files = f"--cert {leaf.certificate} --key {leaf.key}" if apart else f"--cert {leaf.combined}"
    server = f"smtps://localhost:{postfix.demands_port}"
    line = {
        "check": f"check {server}",
        "send": f"send --server {server} --from a@lab.test --to b@lab.test --text hi",
        "process": f"process --server {server} --once --spool {tmp_path / 'spool'}",
    }[command]
    if command == "process":
        shell(f"queue add --create --spool {tmp_path / 'spool'} --from a@lab.test --to b@lab.test --text hi")
    done = shell(f"{line} --ca-file {pki.ca_file} {files}")
    # A check finds that no login is offered there.
    assert done.exit_code == (1 if command == "check" else 0), done.output
    if command == "check":
        assert "Client certificate: asked for, ours was shown" in done.stdout


# --- trust -----------------------------------------------------------------------------------------------------


def test_a_pin_that_holds(shell, submission, pki):
    key = Certificate.load(pki.server.certificate.read_bytes()).public_key_sha256
    done = shell(f"check localhost:{submission.port} --ca-file {pki.ca_file} --pin {'00' * 32} --pin {key}")
    assert done.exit_code == 0 and "Verified: yes" in done.stdout


def test_a_pin_that_does_not_hold(shell, submission, pki):
    done = shell(f"check localhost:{submission.port} --ca-file {pki.ca_file} --pin {'00' * 32}")
    assert done.exit_code == 5
    assert "Problem: no certificate in the chain of localhost" in done.stdout
    assert "give one of its fingerprints with --pin SHA256." in done.stdout


def test_what_is_no_pin(shell):
    done = shell("check localhost --pin 1234")
    assert done.exit_code == 2 and "is no pin" in done.stderr


def test_problems_can_be_ignored(shell, serve, pki):
    server = serve(ssl_context=pki.server_context(pki.expired), users=USERS)
    given = f"localhost:{server.port} --security starttls --ca-file {pki.ca_file}"
    done = shell(f"check {given}")
    assert done.exit_code == 5 and "expired on" in done.stdout
    done = shell(f"check {given} --ignore time --ignore host-name")
    assert "Verified: no, but accepted as you asked" in done.stdout
    assert "Problem: the certificate of localhost" in done.stdout
    assert done.exit_code == 1 and "is not proved: the certificate of localhost" in done.stdout


def test_a_folder_of_certificates(shell, submission, pki, tmp_path):
    (tmp_path / "ca.pem").write_bytes(pki.ca_file.read_bytes())
    subprocess.run(["openssl", "rehash", str(tmp_path)], check=True, capture_output=True)
    assert shell(f"check localhost:{submission.port} --ca-path {tmp_path}").exit_code == 0
    done = shell(f"check localhost:{submission.port} --ca-path {tmp_path}/none")
    assert done.exit_code == 5 and "is no folder" in done.stdout


def test_send_takes_them_too(shell, serve, pki):
    server = serve(ssl_context=pki.server_context())
    to = f"--server localhost:{server.port} --security starttls --ca-file {pki.ca_file}"
    mail = "--from a@b.test --to c@d.test --text hi"
    wrong = shell(f"send {to} {mail} --pin {'00' * 32}")
    assert wrong.exit_code == 5 and "has one of the pins" in wrong.stderr
    key = Certificate.load(pki.server.certificate.read_bytes()).sha256
    assert shell(f"send {to} {mail} --pin {key} --ignore usage").exit_code == 0


@pytest.mark.parametrize("how", ["auto", "crl", "ocsp", "crl-then-ocsp", "ocsp-then-crl", "all"])
def test_the_state_of_revocation_is_shown(shell, submission, pki, how):
    done = shell(f"check localhost:{submission.port} --ca-file {pki.ca_file} --revocation {how}")
    assert done.exit_code == 0
    (state,) = (line for line in done.stdout.splitlines() if line.startswith("Revocation: "))
    assert "is not known: the certificate names no" in state


@pytest.fixture(scope="module")
def authority():
    with openssl_authority() as found:
        yield found


@pytest.mark.parametrize(
    ("shown", "code", "words"),
    [
        ("server", 0, "CN=server is not revoked, says http://127.0.0.1:"),
        ("revoked", 5, "CN=revoked was revoked on "),
    ],
)
def test_the_chain_tells_what_its_authority_says(shell, serve, authority, shown, code, words):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.directory / f"{shown}.crt", authority.directory / f"{shown}.key")
    server = serve(ssl_context=context, users=USERS, implicit_tls=True)
    done = shell(
        f"check smtps://localhost:{server.port} --ca-file {authority.directory / 'ca.crt'} --revocation ocsp"
    )
    assert done.exit_code == code, done.output
    (state,) = (line for line in done.stdout.splitlines() if line.startswith("Revocation: "))
    assert words in state


@pytest.mark.parametrize(
    ("shown", "code", "words"),
    [
        ("server", 0, "CN=server is not revoked, says http://127.0.0.1:"),
        ("revoked", 5, "CN=revoked was revoked on "),
        ("without", 0, "is not known: the certificate names no OCSP responder"),
    ],
)
def test_a_terminal_gets_the_state_of_revocation_in_the_tree(
    shell, serve, authority, pki, terminal, shown, code, words
):
    if shown == "without":
        context, trusted = pki.server_context(), pki.ca_file
    else:
        context, trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), authority.directory / "ca.crt"
        context.load_cert_chain(authority.directory / f"{shown}.crt", authority.directory / f"{shown}.key")
    server = serve(ssl_context=context, users=USERS, implicit_tls=True)
    done = shell(f"check smtps://localhost:{server.port} --ca-file {trusted} --revocation ocsp")
    assert done.exit_code == code, done.output
    _, _, tree = done.stdout.partition("Certificate ")
    (state,) = (line for line in tree.splitlines() if " Revocation " in line)
    # It hangs below the certificate, as its other properties do.
    assert "── Revocation " in state and words in state
    assert ("\n✗ " in done.stdout) is (shown == "revoked")


@pytest.mark.parametrize("shown", ["server", "revoked"])
def test_send_asks_and_reads_a_folder(shell, serve, authority, tmp_path, shown):
    (tmp_path / "ca.pem").write_bytes((authority.directory / "ca.crt").read_bytes())
    subprocess.run(["openssl", "rehash", str(tmp_path)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.directory / f"{shown}.crt", authority.directory / f"{shown}.key")
    server = serve(ssl_context=context, implicit_tls=True)
    to = f"--server smtps://localhost:{server.port} --ca-path {tmp_path} --revocation ocsp"
    done = shell(f"send {to} --from a@b.test --to c@d.test --text hi")
    if shown == "server":
        assert done.exit_code == 0, done.output
    else:
        assert done.exit_code == 5 and "CN=revoked was revoked on " in done.stderr
        assert not server.messages


def test_json_of_problems(shell, serve, pki):
    server = serve(ssl_context=pki.server_context(pki.wrong_host), users=USERS)
    given = f"check localhost:{server.port} --security starttls --ca-file {pki.ca_file} --json"
    found = json.loads(shell(given).stdout)["validation"]
    assert found["result"] == "INVALID"
    (problem,) = found["problems"]
    assert (problem["kind"], problem["excused"]) == ("HOST_NAME", False)
    found = json.loads(shell(f"{given} --ignore host-name").stdout)["validation"]
    assert found["result"] == "VALID" and found["problems"][0]["excused"]


def test_the_stages_have_their_times(shell, submission, pki, password_file):
    line = f"check localhost:{submission.port} --user ann --ca-file {pki.ca_file} --password-file"
    times = dict(
        part.split(": ", 1)
        for part in shell(line, password_file).stdout.splitlines()
        if part.startswith("Time ")
    )
    assert list(times) == [f"Time {stage}" for stage in ("DNS", "TCP", "greeting", "EHLO", "TLS", "AUTH")]
    assert all(float(text.removesuffix(" ms")) >= 0 for text in times.values())
    seconds = json.loads(shell(f"{line} ", password_file, "--json").stdout)["stage_seconds"]
    assert list(seconds) == ["DNS", "TCP", "greeting", "EHLO", "TLS", "AUTH"]
    assert all(0 <= one < 20 for one in seconds.values())


def test_on_a_terminal_times_are_bars(shell, submission, pki, terminal):
    done = shell(f"check localhost:{submission.port} --ca-file {pki.ca_file}")
    bars = [line for line in done.stdout.splitlines() if "Time " in line]
    assert len(bars) == 5 and all(line.rstrip().endswith(" ms") for line in bars)
    assert all("\N{FULL BLOCK}" in line for line in bars)


def test_bars_follow_each_other():
    seconds = {"DNS": 0.1, "TCP": 0.1, "greeting": 0.2, "TLS": 0.0}
    rows = list(report.rows_of_times(ServerReport(server="x", stage_seconds=seconds), 8))
    assert [label for label, _ in rows] == ["Time DNS", "Time TCP", "Time greeting", "Time TLS"]
    block = "\N{FULL BLOCK}"
    bars = [block * 2, f"  {block * 2}", f"    {block * 4}", f"        {block}"]
    assert [text[:9].rstrip() for _, text in rows] == bars


def test_one_family_only(shell, serve):
    server = serve()
    assert "Greeting: 220" in shell(f"check -4 {server.url}").stdout
    done = shell(f"check -6 smtp+plain://127.0.0.1:{server.port}")
    assert done.exit_code == 5 and "annot resolve 127.0.0.1" in done.stdout
    done = shell(f"check -4 -6 {server.url}")
    assert done.exit_code == 2 and "exclude each other" in done.stderr


def test_a_dns_server_of_ones_own(shell, serve, dns):
    server = serve()
    done = shell(f"check smtp+plain://v4.lab.test:{server.port} --resolver {dns.server}")
    assert "Greeting: 220" in done.stdout
    done = shell(f"check mail.example --resolver {dns.server.partition(':')[0]}:x")
    assert done.exit_code == 2 and "DNS server is an IP address" in done.stderr


def test_the_mail_exchangers_of_a_domain(shell, dns):
    """127.0.0.1:25 of this machine may or may not be a mail server: what is shown is which names were looked up."""
    done = shell(f"check --mx null.lab.test --resolver {dns.server}")
    assert done.exit_code == 5 and "takes no mail: it has a null MX record" in done.stdout
    done = shell(f"check --mx lab.test --user ann --resolver {dns.server}")
    assert done.exit_code == 2 and "without a login" in done.stderr


def test_no_server_of_an_address(shell, dns):
    line = f"check --discover ann@none.lab.test --resolver {dns.server}"
    done = shell(line)
    assert done.exit_code == 1 and "No server was found for ann@none.lab.test." in done.stdout
    assert (
        "WRONG smtp.none.lab.test:465 (implicit): Smtp is a usual name for it; cannot resolve" in done.stdout
    )
    found = json.loads(shell(f"{line} --json").stdout)
    assert found["best"] is None and len(found["servers"]) == 4


@pytest.mark.parametrize(
    "line", ["check", "check mail.example --mx example.org", "check --mx a.b --discover c@d.e"]
)
def test_one_of_three_is_named(shell, line):
    done = shell(line)
    assert done.exit_code == 2 and "name a server, or a domain with --mx" in done.stderr.lower()
