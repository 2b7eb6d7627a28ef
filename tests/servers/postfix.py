"""Postfix: one instance with twelve services, from bare SMTP to implicit TLS with AUTH and client certificates."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.servers import PASSWORD, REFUSED_CONTENT, REFUSED_SENDER, SIZE_LIMIT, USER, machine
from tests.servers.daemon import Daemon, new_directory
from tests.servers.kdc import Kdc
from tests.servers.maildir import Mailbox
from tests.servers.pki import Pki

HOSTNAME = "mx.lab.test"
BARE_LACKS = "pipelining,chunking,dsn,8bitmime,smtputf8,enhancedstatuscodes,size,etrn,vrfy"
SASL_MECHANISMS = (
    *("PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"),
    *("NTLM", "GSSAPI", "ANONYMOUS"),
)

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/log
maillog_file_prefixes = {directory}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = {hostname}
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =

# Mail for lab.test goes to one Maildir, any other to nowhere.
virtual_mailbox_domains = lab.test
virtual_mailbox_maps = static:all/
virtual_mailbox_base = {directory}/mail
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
default_transport = discard:
message_size_limit = {size_limit}
virtual_mailbox_limit = 0
mailbox_size_limit = 0

# Refusals, each as the reply to the command that earned it.
smtpd_delay_reject = no
smtpd_sender_restrictions = check_sender_access inline:{{ {{{refused_sender} = REJECT sender refused}} }}
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject
smtpd_recipient_restrictions = check_recipient_access
    inline:{{ {{reject.test = REJECT no such user}}, {{defer.test = DEFER try again later}} }}
header_checks = regexp:{directory}/etc/content
body_checks = regexp:{directory}/etc/content

# A test may fail as often and connect as often as it likes.
smtpd_error_sleep_time = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
default_process_limit = 200
anvil_rate_time_unit = 1s

smtpd_tls_chain_files = {tls}, {rsa}
smtpd_tls_CAfile = {authority}
smtpd_tls_received_header = yes
smtpd_tls_loglevel = 1
smtpd_sasl_path = smtpd
smtpd_sasl_authenticated_header = yes
smtpd_sasl_security_options = noanonymous
cyrus_sasl_config_path = {directory}/etc/sasl
# For GSSAPI; the files come with the key distribution centre.
import_environment = MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C
    KRB5_CONFIG={directory}/etc/krb5.conf KRB5_KTNAME={directory}/etc/krb5.keytab
"""

MASTER_CF = """\
127.0.0.1:{plain} inet n - n - - smtpd
  -o syslog_name=plain -o smtpd_tls_security_level=none
127.0.0.1:{starttls} inet n - n - - smtpd
  -o syslog_name=starttls -o smtpd_tls_security_level=may
127.0.0.1:{auth} inet n - n - - smtpd
  -o syslog_name=auth -o smtpd_tls_security_level=may -o smtpd_tls_auth_only=yes -o smtpd_sasl_auth_enable=yes
127.0.0.1:{tls} inet n - n - - smtpd
  -o syslog_name=tls -o smtpd_tls_wrappermode=yes -o smtpd_sasl_auth_enable=yes
# Named like the host that clients connect to: GSSAPI takes the key of the service smtp at that name.
127.0.0.1:{sasl} inet n - n - - smtpd
  -o syslog_name=sasl -o smtpd_tls_security_level=may -o smtpd_sasl_auth_enable=yes
  -o smtpd_sasl_path=sasl -o smtpd_sasl_security_options= -o myhostname=localhost -o smtpd_sasl_local_domain={hostname}
127.0.0.1:{asks} inet n - n - - smtpd
  -o syslog_name=asks -o smtpd_tls_security_level=may -o smtpd_tls_ask_ccert=yes
127.0.0.1:{demands} inet n - n - - smtpd
  -o syslog_name=demands -o smtpd_tls_wrappermode=yes -o smtpd_tls_security_level=encrypt -o smtpd_tls_req_ccert=yes
127.0.0.1:{bare} inet n - n - - smtpd
  -o syslog_name=bare -o smtpd_tls_security_level=none -o smtpd_discard_ehlo_keywords={bare_lacks}
127.0.0.1:{limited} inet n - n - - smtpd
  -o syslog_name=limited -o smtpd_tls_security_level=none -o smtpd_client_event_limit_exceptions=
  -o smtpd_client_connection_count_limit=5 -o smtpd_client_message_rate_limit=100
127.0.0.1:{proxied} inet n - n - - smtpd
  -o syslog_name=proxied -o smtpd_tls_security_level=may -o smtpd_upstream_proxy_protocol=haproxy
  -o smtpd_relay_restrictions=permit_auth_destination,reject -o smtpd_peername_lookup=no
# Each process reads the certificate that `show` has put there, and serves one connection.
127.0.0.1:{shown} inet n - n - - smtpd
  -o syslog_name=shown -o smtpd_tls_security_level=may -o smtpd_tls_chain_files={directory}/tls/shown.pem
  -o max_use=1 -o smtpd_client_port_logging=yes
127.0.0.1:{shown_tls} inet n - n - - smtpd
  -o syslog_name=shown -o smtpd_tls_wrappermode=yes -o smtpd_tls_chain_files={directory}/tls/shown.pem
  -o max_use=1 -o smtpd_client_port_logging=yes
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

SMTPD_CONF = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {directory}/etc/sasl/sasldb2
mech_list: {mechanisms}
"""


class Ports(NamedTuple):
    """One port per service."""

    plain: int
    starttls: int
    auth: int
    tls: int
    sasl: int
    asks: int
    demands: int
    bare: int
    limited: int
    proxied: int
    shown: int
    shown_tls: int


class Postfix:
    """A running Postfix.

    Attributes:
        host: Where it listens.
        plain_port: No TLS, no AUTH; PIPELINING, CHUNKING, DSN, SMTPUTF8, 8BITMIME, SIZE, VRFY.
        starttls_port: The same with STARTTLS.
        auth_port: STARTTLS, and PLAIN LOGIN CRAM-MD5 once in TLS.
        tls_port: TLS from the first byte, the same mechanisms.
        sasl_port: STARTTLS, and in clear as in TLS every mechanism of Cyrus SASL (`SASL_MECHANISMS`). A login by GSSAPI
            fails before `trust` was called.
        asks_port: STARTTLS, and a client certificate is asked for; the Received field tells whose it was.
        demands_port: TLS from the first byte, and without a client certificate no handshake.
        bare_port: Not one extension.
        limited_port: As plain_port, for five connections at once (421) and 100 messages in two seconds (450 to MAIL).
            What is configured is one second, but anvil counts in whole seconds.
        proxied_port: As `starttls_port`, behind the header of the PROXY protocol, which is demanded.
        shown_port, shown_tls_port: STARTTLS, and TLS from the first byte, with the certificates that `show` was given.
        user: May log in, with `password`.
        mailbox: What was delivered for lab.test; each message begins with Return-Path, X-Original-To and
            Delivered-To, and a message with two recipients is delivered twice.
    """

    host = machine.HOST
    hostname = HOSTNAME
    user = USER
    password = PASSWORD

    def __init__(self, daemon: Daemon, ports: Ports) -> None:
        self._daemon = daemon
        self.ports = ports
        self.plain_port, self.starttls_port, self.auth_port, self.tls_port, *others = ports
        (
            self.sasl_port,
            self.asks_port,
            self.demands_port,
            self.bare_port,
            self.limited_port,
            self.proxied_port,
            self.shown_port,
            self.shown_tls_port,
        ) = others
        self.directory = daemon.directory
        self.log_file = daemon.directory / "log"
        self.mailbox = Mailbox(daemon.directory / "mail" / "all", in_flight=self._in_flight)

    @classmethod
    def start(cls, pki: Pki) -> "Postfix":
        """Starts one; skips the calling test where that cannot be."""
        postfix, saslpasswd = machine.program("postfix"), machine.program("saslpasswd2")
        machine.require_root("Postfix")
        directory = new_directory("postfix")
        with machine.reserved_ports(len(Ports._fields)) as numbers:
            ports = Ports(*numbers)
            _configure(directory, ports, pki)
            _add_user(directory, saslpasswd)
            daemon = Daemon(directory, [postfix, "-c", directory / "etc", "start-fg"])
            daemon.wait_ready(lambda: all(map(machine.listening, ports)), log=directory / "log")
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
        """What Postfix logged so far."""
        return self.log_file.read_text(errors="replace")

    def trust(self, kdc: Kdc) -> None:
        """Takes the tickets of this key distribution centre from now on."""
        shutil.copy(kdc.configuration, self.directory / "etc" / "krb5.conf")
        shutil.copy(kdc.keytab, self.directory / "etc" / "krb5.keytab")

    def show(self, pem: bytes) -> None:
        """Shows this key and these certificates, the server's own first, from the next connection on."""
        path = self.directory / "tls" / "shown.pem"
        path.with_suffix(".new").write_bytes(pem)
        path.with_suffix(".new").replace(path)

    def commands_of(self, port: int, start: int, timeout: float = 10) -> list[str]:
        """What the client at `port` of this machine has said to a service that shows certificates, when it has gone.

        The names of the commands, as often as they were sent, in the order of the alphabet. Ports are used again, so
        only what was logged from `start` on counts.
        """
        line = re.compile(rf"shown/smtpd\[\d+\]: disconnect from \S*\[127\.0\.0\.1\]:{port} (.*)")
        machine.wait_until(
            lambda: line.search(self.log(), start) is not None,
            timeout=timeout,
            what=lambda: f"{port} is still there",
        )
        found = line.search(self.log(), start)
        assert found is not None
        counts = re.findall(r"(\w+)=(?:\d+/)?(\d+)", found[1])
        return sorted(name for name, count in counts if name != "commands" for _ in range(int(count)))

    def stop(self) -> None:
        """Ends it and removes what it had."""
        self._daemon.stop()

    def _in_flight(self) -> list[Path]:
        # In the order in which a message passes them, so that one on its way is met at least once.
        queues = [self.directory / "queue" / name for name in ("maildrop", "incoming", "active")]
        return [path for queue in queues for path in queue.rglob("*") if not path.is_dir()]


def _configure(directory: Path, ports: Ports, pki: Pki) -> None:
    for name in ("etc/sasl", "queue", "data", "mail", "tls"):
        (directory / name).mkdir(parents=True)
    shutil.chown(directory / "data", "postfix", "postfix")
    shutil.chown(directory / "mail", 65534, 65534)
    tls = shutil.copy(pki.server.combined, directory / "tls")
    shutil.copy(pki.server.combined, directory / "tls" / "shown.pem")
    files = {
        "main.cf": MAIN_CF.format(
            directory=directory,
            hostname=HOSTNAME,
            refused_sender=REFUSED_SENDER,
            size_limit=SIZE_LIMIT,
            tls=tls,
            rsa=shutil.copy(pki.rsa.combined, directory / "tls"),
            authority=shutil.copy(pki.ca_file, directory / "tls"),
        ),
        "master.cf": MASTER_CF.format(
            **ports._asdict(), bare_lacks=BARE_LACKS, hostname=HOSTNAME, directory=directory
        ),
        "content": f"/{REFUSED_CONTENT}/ REJECT content refused\n",
        # Debian 12's Postfix reads it here whatever main.cf says, Debian 13's in cyrus_sasl_config_path.
        "sasl/smtpd.conf": SMTPD_CONF.format(directory=directory, mechanisms="PLAIN LOGIN CRAM-MD5"),
        "sasl/sasl.conf": SMTPD_CONF.format(directory=directory, mechanisms=" ".join(SASL_MECHANISMS)),
    }
    for name, text in files.items():
        (directory / "etc" / name).write_text(text)


def _add_user(directory: Path, saslpasswd: Path) -> None:
    database = directory / "etc" / "sasl" / "sasldb2"
    # Postfix asks for its users in the realm of its own host name.
    command: list[str | Path] = [saslpasswd, "-p", "-c", "-f", database, "-u", HOSTNAME, USER]
    subprocess.run(command, input=PASSWORD.encode(), check=True, capture_output=True)
    shutil.chown(database, "root", "postfix")
    database.chmod(0o640)
