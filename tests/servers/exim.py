"""Exim: the second opinion on everything that Postfix says, beside Postfix on the same machine."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.servers import PASSWORD, REFUSED_CONTENT, REFUSED_SENDER, SIZE_LIMIT, USER, machine
from tests.servers.daemon import Daemon, new_directory
from tests.servers.maildir import Mailbox
from tests.servers.pki import CLIENT_NAME, Pki

HOSTNAME = "exim.lab.test"
PACKAGE = "exim4-daemon-heavy"
CACHE = Path(__file__).parents[2] / ".cache"
SCRIPT = Path(__file__).with_name("exim.sh")
OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private")

# Not $message_headers, because decoding the encoded words of large headers, Exim 4.96 dies now and then.
CONF = """\
IDENTITY = {directory}/tls/${{if or{{{{eq{{$received_port}}{{{shown}}}}}{{eq{{$received_port}}{{{shown_tls}}}}}}}\
  {{shown.pem}}{{server.pem}}}}
primary_hostname = {hostname}
exim_user = Debian-exim
exim_group = Debian-exim
never_users =
spool_directory = {directory}/spool
log_file_path = {directory}/logs/%s
pid_file_path = {directory}/spool/exim.pid
keep_environment =

local_interfaces = <; 127.0.0.1.{plain} ; 127.0.0.1.{auth} ; 127.0.0.1.{tls} ; \
  127.0.0.1.{asks} ; 127.0.0.1.{demands} ; 127.0.0.1.{shown} ; 127.0.0.1.{shown_tls}
daemon_smtp_ports = {plain}
tls_on_connect_ports = {tls} : {demands} : {shown_tls}
tls_advertise_hosts = ${{if ={{$received_port}}{{{plain}}} {{}} {{*}}}}
# With an expansion in it, each connection reads the file.
tls_certificate = IDENTITY
tls_privatekey = IDENTITY
tls_resumption_hosts = *
tls_verify_certificates = {directory}/tls/authority.crt
tls_try_verify_hosts = ${{if ={{$received_port}}{{{asks}}} {{*}} {{}}}}
tls_verify_hosts = ${{if ={{$received_port}}{{{demands}}} {{*}} {{}}}}
log_selector = +tls_peerdn +tls_certificate_verified +incoming_port +smtp_no_mail
auth_advertise_hosts = ${{if def:tls_in_cipher {{*}} {{}}}}

pipelining_advertise_hosts = *
chunking_advertise_hosts = *
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
accept_8bitmime = true
message_size_limit = {size_limit}
# Enough to find what is to be refused. With 100K, Exim 4.96-15+deb12u11 crashes while it shows some bodies.
message_body_visible = 2000
rfc1413_query_timeout = 0s

# A test may connect as often and send as much as it likes, and all of it is delivered at once.
smtp_accept_max = 500
smtp_accept_max_per_connection = 1000000
smtp_accept_queue_per_connection = 0

acl_smtp_mail = check_mail
acl_smtp_rcpt = check_rcpt
acl_smtp_data = check_data
acl_smtp_vrfy = accept
acl_smtp_expn = accept
acl_smtp_etrn = accept
smtp_etrn_command = /bin/true

begin acl
check_mail:
  deny senders = {refused_sender}
       message = sender refused
  accept
check_rcpt:
  defer domains = defer.test
        message = try again later
  deny domains = reject.test
       message = no such user
  accept
check_data:
  deny condition = ${{if match{{$message_headers_raw $message_body}}{{{refused_content}}}}}
       message = content refused
  accept

begin routers
staff:
  driver = redirect
  domains = lab.test
  local_parts = staff
  data = ann@lab.test, Bob <bob@lab.test>
local:
  driver = accept
  domains = lab.test
  transport = maildir
elsewhere:
  driver = redirect
  data = :blackhole:

begin transports
maildir:
  driver = appendfile
  directory = {directory}/mail/all
  maildir_format
  envelope_to_add
  return_path_add
  user = Debian-exim
  group = Debian-exim

begin retry
* * F,1h,5m

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if and{{{{eq{{$auth1}}{{{user}}}}}{{eq{{$auth2}}{{{password}}}}}}}}}
  server_set_id = $auth1
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${{if eq{{$auth1}}{{{user}}}{{{password}}}fail}}
  server_set_id = $auth1
external:
  driver = external
  public_name = EXTERNAL
  server_advertise_condition = $tls_in_certificate_verified
  server_param2 = ${{certextract{{subject,CN}}{{$tls_in_peercert}}}}
  server_condition = ${{if and{{{{eq{{$auth2}}{{{client}}}}} \
    {{or{{{{eq{{$auth1}}{{}}}}{{eq{{$auth1}}{{{client}}}}}}}}}}}}}
  server_set_id = $auth2
"""


class Ports(NamedTuple):
    """One port per service."""

    plain: int
    auth: int
    tls: int
    asks: int
    demands: int
    shown: int
    shown_tls: int


class Exim:
    """A running Exim.

    Attributes:
        host: Where it listens.
        plain_port: No TLS, no AUTH; PIPELINING, PIPECONNECT, CHUNKING, DSN, SMTPUTF8, 8BITMIME, SIZE, VRFY.
        auth_port: STARTTLS, and PLAIN LOGIN CRAM-MD5 once in TLS.
        tls_port: TLS from the first byte, the same mechanisms.
        asks_port: STARTTLS, and a client certificate is asked for; the log tells whose it was. Who shows one may log in
            by EXTERNAL, as the certificate's common name, if that is `pki.CLIENT_NAME`.
        demands_port: TLS from the first byte, and without a client certificate no handshake.
        shown_port, shown_tls_port: STARTTLS, and TLS from the first byte, with the certificates that `show` was given.
        user: May log in, with `password`.
        mailbox: What was delivered for lab.test; each message begins with Return-path and Envelope-to, and a
            message with two recipients is delivered twice.
    """

    host = machine.HOST
    hostname = HOSTNAME
    user = USER
    password = PASSWORD

    def __init__(self, daemon: Daemon, ports: Ports) -> None:
        self._daemon = daemon
        self.ports = ports
        self.plain_port, self.auth_port, self.tls_port, self.asks_port, self.demands_port, *others = ports
        self.shown_port, self.shown_tls_port = others
        self.directory = daemon.directory
        self.log_file = daemon.directory / "logs" / "main"
        self.mailbox = Mailbox(daemon.directory / "mail" / "all", in_flight=self._in_flight)

    @classmethod
    def start(cls, pki: Pki) -> "Exim":
        """Starts one; skips the calling test where that cannot be."""
        machine.require_root("Exim")
        for name in ("unshare", "dpkg-deb", "apt-get"):
            machine.program(name)
        packages = _packages()
        directory = new_directory("exim")
        _require_mounts(directory)
        with machine.reserved_ports(len(Ports._fields)) as numbers:
            ports = Ports(*numbers)
            _configure(directory, ports, pki)
            daemon = Daemon(directory, [*OWN_MOUNTS, SCRIPT, directory, *packages])
            daemon.wait_ready(lambda: all(map(machine.listening, ports)), log=directory / "logs" / "panic")
        return cls(daemon, ports)

    def messages(self, timeout: float = 10) -> list[bytes]:
        """All messages delivered for lab.test, oldest first; waits for those still on their way."""
        return self.mailbox.messages(timeout)

    def wait_for_message(self, substring: str | bytes, count: int = 1, timeout: float = 10) -> list[bytes]:
        """The messages that hold a string, as soon as there are `count` of them."""
        return self.mailbox.wait_for(substring, count, timeout)

    def clear(self) -> None:
        """Forgets the messages, not the log."""
        self.mailbox.clear()

    def log(self) -> str:
        """What Exim logged so far; what it refused included."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def show(self, pem: bytes) -> None:
        """Shows this key and these certificates, the server's own first, from the next connection on."""
        path = self.directory / "tls" / "shown.pem"
        path.with_suffix(".new").write_bytes(pem)
        path.with_suffix(".new").replace(path)

    def commands_of(self, port: int, start: int, timeout: float = 10) -> list[str]:
        """What the client at `port` of this machine has said, without MAIL, when it has gone.

        The names of the commands, as often as they were sent, in the order of the alphabet. Ports are used again, so
        only what was logged from `start` on counts. Of a client that has not finished its handshake nothing is told.
        """
        line = re.compile(rf"no MAIL in SMTP connection from .*\[127\.0\.0\.1\]:{port} (.*)")
        machine.wait_until(
            lambda: line.search(self.log(), start) is not None,
            timeout=timeout,
            what=lambda: f"{port} is still there",
        )
        found = line.search(self.log(), start)
        assert found is not None
        _, _, commands = found[1].partition(" C=")
        return sorted(commands.lower().split(",")) if commands else []

    def stop(self) -> None:
        """Ends it and removes what it had."""
        self._daemon.stop()

    def _in_flight(self) -> list[Path]:
        return list((self.directory / "spool" / "input").glob("*"))


def _configure(directory: Path, ports: Ports, pki: Pki) -> None:
    for name in ("spool", "mail", "tls", "logs"):
        (directory / name).mkdir()
    for name in ("server.pem", "shown.pem"):
        shutil.copy(pki.server.combined, directory / "tls" / name)
    shutil.copy(pki.ca_file, directory / "tls" / "authority.crt")
    text = CONF.format(
        directory=directory,
        hostname=HOSTNAME,
        refused_sender=REFUSED_SENDER,
        refused_content=REFUSED_CONTENT,
        size_limit=SIZE_LIMIT,
        user=USER,
        password=PASSWORD,
        client=CLIENT_NAME,
        **ports._asdict(),
    )
    (directory / "exim.conf").write_text(text)


def _require_mounts(directory: Path) -> None:
    (directory / "layer").mkdir()
    tried = subprocess.run([*OWN_MOUNTS, SCRIPT, directory], capture_output=True, text=True)
    if tried.returncode:
        shutil.rmtree(directory)
        machine.unavailable(f"Exim needs an overlay, which may not be mounted here: {tried.stderr.strip()}")


def _packages() -> list[Path]:
    """Exim's packages and those that it needs and this machine lacks, from a cache or else from Debian.

    What is lacking depends on what is installed: the cache is for one state of the machine.
    """
    state = hashlib.sha256(Path("/var/lib/dpkg/status").read_bytes()).hexdigest()[:16]
    cache = CACHE / f"exim-{state}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "exim.lock").open("w") as lock:
        machine.lock(lock)
        if not cache.exists():
            for outdated in CACHE.glob("exim-*"):
                shutil.rmtree(outdated)
            _download(cache)
    return sorted(cache.glob("*.deb"))


def _download(cache: Path) -> None:
    unfinished = cache.with_name("exim-unfinished")
    (unfinished / "partial").mkdir(parents=True)
    settings = {
        "Dir::Cache::archives": unfinished,
        "Debug::NoLocking": "1",  # nothing is installed
        "APT::Sandbox::User": "root",  # only root may write here
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    wanted = ["install", "--download-only", "--yes", "--no-install-recommends", "--reinstall", PACKAGE]
    failed = _apt([*options, *wanted])
    if failed:  # no package lists yet, or too old ones
        failed = _apt(["update"]) or _apt([*options, *wanted])
    if failed:
        machine.unavailable(f"{PACKAGE} cannot be had: {failed}")
    unfinished.rename(cache)


def _apt(words: Sequence[str | Path]) -> str:
    """Runs apt-get; returns what it complained about if it failed."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=120", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.stderr.strip() or f"apt-get ended with {done.returncode}" if done.returncode else ""
