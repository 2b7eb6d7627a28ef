"""Cyrus IMAP's LMTP: the one packaged server whose SCRAM binds to the TLS channel."""

import shutil
import subprocess
from pathlib import Path

from tests.servers import PASSWORD, USER, machine
from tests.servers.daemon import Daemon, new_directory
from tests.servers.pki import Pki

#: Debian puts it into the first, others elsewhere.
PROGRAMS = ("/usr/lib/cyrus/bin", "/usr/lib/cyrus-imapd", "/usr/cyrus/bin")

IMAPD_CONF = """\
configdirectory: {directory}/state
proc_path: {directory}/state/proc
lmtpsocket: {directory}/state/lmtp.sock
idlesocket: {directory}/state/idle.sock
notifysocket: {directory}/state/notify.sock
defaultpartition: default
partition-default: {directory}/mail
servername: localhost
lmtp_admins: {user}
tls_versions: tls1_2 tls1_3
tls_server_cert: {directory}/state/server.crt
tls_server_key: {directory}/state/server.key
allowplaintext: no
sasl_mech_list: PLAIN SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-512
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: {directory}/state/sasldb2
"""

CYRUS_CONF = """\
START {{
}}
SERVICES {{
  lmtp cmd="lmtpd -C {directory}/imapd.conf" listen="127.0.0.1:{lmtp}" prefork=1
}}
EVENTS {{
}}
"""


class Cyrus:
    """A running lmtpd of Cyrus IMAP, which takes logins and has no mailboxes.

    In TLS of every version each SCRAM is offered with -PLUS, too, and its binding is tls-unique. Any other binding, a
    wrong one, and the flag "y" of a client that did not see -PLUS offered, are refused with 501.

    Attributes:
        host: Where it listens.
        lmtp_port: STARTTLS, then PLAIN and SCRAM-SHA-1, -256, -512, each SCRAM also with -PLUS.
        user: May log in, with `password`.
    """

    host = machine.HOST
    user = USER
    password = PASSWORD

    def __init__(self, daemon: Daemon, lmtp_port: int) -> None:
        self._daemon = daemon
        self.lmtp_port = lmtp_port

    @classmethod
    def start(cls, pki: Pki) -> "Cyrus":
        """Starts one; skips the calling test where that cannot be."""
        programs = next((one for one in map(Path, PROGRAMS) if (one / "lmtpd").exists()), None)
        if programs is None:
            machine.unavailable("cyrus-imapd is not installed (tests/servers/install.sh installs it)")
        saslpasswd = machine.program("saslpasswd2")
        machine.require_root("Cyrus")
        directory = new_directory("cyrus")
        with machine.reserved_ports(1) as (port,):
            _configure(directory, port, pki, saslpasswd)
            options: list[str | Path] = ["-D", "-C", directory / "imapd.conf", "-M", directory / "cyrus.conf"]
            daemon = Daemon(directory, [programs / "master", *options, "-p", directory / "pid"])
            daemon.wait_ready(lambda: machine.listening(port))
        return cls(daemon, port)

    def stop(self) -> None:
        """Ends it and removes what it had."""
        self._daemon.stop()


def _configure(directory: Path, port: int, pki: Pki, saslpasswd: Path) -> None:
    state = directory / "state"
    for folder in (
        state,
        *(state / name for name in ("db", "proc", "socket", "log", "lock")),
        directory / "mail",
    ):
        folder.mkdir()
    for name, text in (("imapd.conf", IMAPD_CONF), ("cyrus.conf", CYRUS_CONF)):
        (directory / name).write_text(text.format(directory=directory, lmtp=port, user=USER))
    shutil.copy(pki.server.certificate, state / "server.crt")
    shutil.copy(pki.server.key, state / "server.key")
    command: list[str | Path] = [saslpasswd, "-p", "-c", "-f", state / "sasldb2", "-u", "localhost", USER]
    subprocess.run(command, input=PASSWORD.encode(), check=True, capture_output=True)
    for path in (directory / "mail", state, *state.rglob("*")):
        shutil.chown(path, "cyrus", "mail")
