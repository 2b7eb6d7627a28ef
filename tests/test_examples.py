"""examples/: whole programs, run as a user runs them."""

import subprocess
import sys
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from smtp_async import dkim_record
from smtp_async.testing import RecordingSink, ServerThread, close, reply

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
ANN_TO_BOB = ("--from", "ann@example.com", "--to", "bob@example.org")
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def run(name: str, *arguments: str, text: str = "Hi\n") -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=15,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    return done.returncode, done.stdout, done.stderr


def test_each_is_in_the_list() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"({name}.py)" not in text] == []
    assert len(NAMES) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_each_tells_how_it_is_called(name: str) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0 and "url" in out


class TestSubmit:
    def test_a_message_with_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "minutes.md"
        file.write_bytes(b"# Minutes\n")
        who = ("--from", "Ann <ann@example.com>", "--to", "bob@example.org", "--to", "carla@example.org")
        with ServerThread(RecordingSink()) as sink:
            code, out, err = run("submit", sink.url, *who, "--subject", "Grüße", "--attach", str(file))
        assert (code, err) == (0, "")
        assert [line.split(" 250")[0] for line in out.splitlines()] == [
            "bob@example.org: accepted",
            "carla@example.org: accepted",
        ]
        message = sink.messages[0]
        assert (message.mail_from, message.rcpt_tos) == (
            "ann@example.com",
            ["bob@example.org", "carla@example.org"],
        )
        assert message.subject == "Grüße"
        text, attached = message.parsed.iter_parts()
        assert (text.get_content(), attached.get_filename()) == ("Hi\n", "minutes.md")

    @pytest.mark.parametrize(
        ("answer", "code", "word"),
        [
            (reply(550, "5.1.1 no such user"), 1, "refused"),
            (reply(451, "4.3.0 later"), 75, "refused"),
            (close(), 75, "not sent"),
        ],
        ids=["refused", "later", "closed"],
    )
    def test_a_failure(self, answer, code: int, word: str) -> None:
        with ServerThread(RecordingSink()) as sink:
            sink.on("RCPT", answer)
            found, out, err = run("submit", sink.url, *ANN_TO_BOB)
        assert (found, out.split(": ")[0]) == (code, "bob@example.org")
        assert word in out and err and "Traceback" not in err

    @pytest.mark.server
    def test_postfix_delivers_it(self, postfix) -> None:
        url = f"smtp+plain://localhost:{postfix.plain_port}"
        who = ("--from", "ann@example.com", "--to", "user@lab.test", "--subject", "example submit")
        code, out, err = run("submit", url, *who)
        assert (code, err) == (0, "") and "accepted 250" in out
        assert postfix.wait_for_message("example submit")


class TestExternalSigning:
    """The key is in a file that only the signer, a process of OpenSSL, reads."""

    KEY = rsa.generate_private_key(65537, 2048)
    WHO = (*ANN_TO_BOB, "--subject", "Signed", "--domain", "example.com", "--selector", "2026a")

    def words(self, folder: Path, signer: str) -> list[str]:
        public = folder / "public.pem"
        public.write_bytes(
            self.KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        return [*self.WHO, "--signer", signer, "--public-key", str(public)]

    def by_openssl(self, folder: Path, key: rsa.RSAPrivateKey) -> str:
        path = folder / "key.pem"
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return f"openssl dgst -sha256 -sign {path}"

    def demand_verified(self, message: bytes) -> None:
        text = dkim_record(self.KEY).encode()
        assert dkim.DKIM(message).verify(dnsfunc=lambda name, timeout=5: text)

    def test_a_signature_by_another_process(self, tmp_path: Path) -> None:
        signer = self.by_openssl(tmp_path, self.KEY)
        with ServerThread(RecordingSink()) as sink:
            code, out, err = run("external_signing", sink.url, *self.words(tmp_path, signer))
        assert (code, err) == (0, "") and out.startswith("bob@example.org: accepted 250")
        self.demand_verified(sink.messages[0].data)

    @pytest.mark.parametrize(
        ("signer", "code", "complaint"),
        [
            ("another key", 1, "does not verify"),
            ("echo rubbish", 1, "does not verify"),
            ("true", 1, "no signature"),
            ("false", 75, "CalledProcessError"),
            ("cat --no-such-option", 75, "unrecognized option"),
            ("/no/such/program", 75, "FileNotFoundError"),
            ("sleep 60", 75, "0.3 s"),
        ],
    )
    def test_without_a_signature_nothing_is_sent(
        self, signer: str, code: int, complaint: str, tmp_path: Path
    ) -> None:
        if signer == "another key":
            signer = self.by_openssl(tmp_path, rsa.generate_private_key(65537, 2048))
        words = self.words(tmp_path, signer)
        if signer.startswith("sleep"):
            words += ["--timeout", "0.3"]
        with ServerThread(RecordingSink()) as sink:
            found, out, err = run("external_signing", sink.url, *words)
        assert sink.messages == [] and not any(one.verb == "MAIL" for one in sink.commands)
        assert (found, out) == (code, "")
        assert complaint in err and "Traceback" not in err

    @pytest.mark.server
    def test_postfix_delivers_it(self, postfix, tmp_path: Path) -> None:
        url = f"smtp+plain://localhost:{postfix.plain_port}"
        words = self.words(tmp_path, self.by_openssl(tmp_path, self.KEY))
        code, _, err = run("external_signing", url, *words, "--to", "user@lab.test")
        assert (code, err) == (0, "")
        (message,) = postfix.wait_for_message("Subject: Signed")
        self.demand_verified(message)


class TestQueueMail:
    def test_a_queue_is_put_and_delivered(self, tmp_path: Path) -> None:
        spool = tmp_path / "spool"
        with ServerThread(RecordingSink()) as sink:
            who = ("--from", "ann@example.com", "--subject", "News")
            them = ("--to", "bob@example.org", "--to", "carla@example.org")
            code, out, err = run("queue_mail", sink.url, str(spool), "--keep-sent", *who, *them)
        assert (code, err) == (0, "")
        assert out.count("queued ") == 2 and "2 sent, 0 deferred, 0 failed" in out
        assert "> MAIL FROM:<ann@example.com>" in out and "< 220 " in out
        assert sorted(message.rcpt_tos[0] for message in sink.messages) == [
            "bob@example.org",
            "carla@example.org",
        ]
        assert [path.suffix for path in spool.rglob("*.sent")] == [".sent"] * 2

    def test_the_next_run_delivers_what_was_left(self, tmp_path: Path) -> None:
        spool = str(tmp_path / "spool")
        code, out, err = run("queue_mail", "smtp+plain://127.0.0.1:1", spool, *ANN_TO_BOB)
        assert code == 1 and "queued " in out and "refused" in err
        with ServerThread(RecordingSink()) as sink:
            code, out, err = run("queue_mail", sink.url, spool)
        assert (code, err) == (0, "") and "1 sent, 0 deferred, 0 failed" in out
        assert [message.rcpt_tos for message in sink.messages] == [["bob@example.org"]]

    def test_a_recipient_that_is_refused_fails(self, tmp_path: Path) -> None:
        with ServerThread(RecordingSink()) as sink:
            sink.on("RCPT", reply(550, "5.1.1 no such user"))
            code, out, err = run("queue_mail", sink.url, str(tmp_path), *ANN_TO_BOB)
        assert code == 1 and "0 sent, 0 deferred, 1 failed" in out
        assert "no such user" in err and "Traceback" not in err

    def test_recipients_need_a_sender(self, tmp_path: Path) -> None:
        code, _, err = run("queue_mail", "smtp+plain://127.0.0.1:1", str(tmp_path), "--to", "bob@example.org")
        assert code == 2 and "--from is missing" in err

    @pytest.mark.server
    def test_postfix_delivers_it(self, postfix, tmp_path: Path) -> None:
        url = f"smtp+plain://localhost:{postfix.plain_port}"
        who = ("--from", "ann@example.com", "--subject", "example queue", "--to", "user@lab.test")
        code, out, err = run("queue_mail", url, str(tmp_path / "spool"), *who)
        assert (code, err) == (0, "") and "1 sent" in out
        assert postfix.wait_for_message("example queue")
