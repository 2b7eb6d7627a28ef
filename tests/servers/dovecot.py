"""Dovecot: LMTP on TCP and on a UNIX socket, and a submission service that relays to Postfix."""

import base64
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from tests.servers import PASSWORD, SIZE_LIMIT, USER, machine
from tests.servers.daemon import Daemon, new_directory
from tests.servers.maildir import Mailbox
from tests.servers.pki import Pki

HOSTNAME = "dovecot.lab.test"
USERS = ("user", "user2", "full")
#: Submission refuses one more, with 451 4.5.3.
MOST_RECIPIENTS = 50
TOKEN_KEY = "a key that signs tokens and is for tests only"

CONF = """\
base_dir = {directory}/run
state_dir = {directory}/run
log_path = {directory}/log
auth_verbose = yes
protocols = submission lmtp
listen = 127.0.0.1
hostname = {hostname}
mail_location = maildir:~/Maildir
mail_uid = 65534
mail_gid = 65534
first_valid_uid = 100
mail_plugins = quota
recipient_delimiter = +

# Not "yes": that counts every connection from this machine as safe.
ssl = required
ssl_cert = <{certificate}
ssl_key = <{key}
# A client certificate is asked for, and EXTERNAL logs in as its common name.
ssl_ca = <{authority}
ssl_verify_client_cert = yes
ssl_require_crl = no
auth_ssl_username_from_cert = yes
disable_plaintext_auth = yes
auth_mechanisms = plain login cram-md5 digest-md5 scram-sha-1 scram-sha-256 oauthbearer xoauth2 external
auth_failure_delay = 0
auth_username_format = %Ln

submission_relay_host = 127.0.0.1
submission_relay_port = {relay_port}
submission_relay_trusted = no
submission_max_mail_size = {size_limit}
submission_max_recipients = {most_recipients}

passdb {{
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = {directory}/oauth2.conf
}}
passdb {{
  driver = static
  mechanisms = external
  args = nopassword=yes
}}
passdb {{
  driver = passwd-file
  mechanisms = plain login cram-md5 digest-md5 scram-sha-1 scram-sha-256
  args = {directory}/users
}}
userdb {{
  driver = passwd-file
  args = {directory}/users
}}
plugin {{
  quota = count:User quota
  quota_vsizes = yes
}}

service submission-login {{
  inet_listener submission {{
    port = {submission}
  }}
  inet_listener submissions {{
    port = {submissions}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
  unix_listener {directory}/lmtp.sock {{
    mode = 0666
  }}
}}
# A wrong password costs the next login from the same address several seconds: not here.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"""

# A token is not shown to any authorization server: its signature is verified here.
OAUTH2_CONF = """\
introspection_mode = local
local_validation_key_dict = fs:posix:prefix={directory}/keys/
username_attribute = sub
scope = smtp
openid_configuration_url = https://login.lab.test/.well-known/openid-configuration
"""


class Ports(NamedTuple):
    """One port per service."""

    lmtp: int
    submission: int
    submissions: int


class Dovecot:
    """A running Dovecot.

    LMTP knows user@lab.test and user2@lab.test, refuses others at RCPT, and refuses full@lab.test, whose
    mailbox is full, only after the content: with a second recipient, one reply of each kind.

    Attributes:
        host: Where it listens.
        lmtp_port: LMTP with STARTTLS, PIPELINING, CHUNKING.
        lmtp_socket: The same on a UNIX socket.
        submission_port: STARTTLS, then PLAIN LOGIN CRAM-MD5 DIGEST-MD5 SCRAM-SHA-1 SCRAM-SHA-256, OAUTHBEARER and
            XOAUTH2 with a `token`, EXTERNAL with the certificate `pki.client`; relays to the plain port of Postfix, in
            whose mailbox the mail ends.
        submissions_port: The same with TLS from the first byte.
        user: May log in, with `password`.
        mailbox: What LMTP delivered, each message beginning with Return-Path.
    """

    host = machine.HOST
    hostname = HOSTNAME
    user = USER
    password = PASSWORD

    def __init__(self, daemon: Daemon, ports: Ports) -> None:
        self._daemon = daemon
        self.ports = ports
        self.lmtp_port, self.submission_port, self.submissions_port = ports
        self.directory = daemon.directory
        self.lmtp_socket = daemon.directory / "lmtp.sock"
        self.log_file = daemon.directory / "log"
        # LMTP answers when the message is in its Maildir: nothing is ever in flight.
        self.mailbox = Mailbox(*(daemon.directory / "mail" / user / "Maildir" for user in USERS))

    @classmethod
    def start(cls, pki: Pki, *, relay_port: int) -> "Dovecot":
        """Starts one; skips the calling test where that cannot be."""
        dovecot = machine.program("dovecot")
        for part in ("lmtp", "submission"):
            if not Path("/usr/lib/dovecot", part).exists():
                machine.unavailable(
                    f"dovecot-{part}d is not installed (tests/servers/install.sh installs it)"
                )
        machine.require_root("Dovecot")
        directory = new_directory("dovecot")
        with machine.reserved_ports(len(Ports._fields)) as numbers:
            ports = Ports(*numbers)
            _configure(directory, ports, pki, relay_port)
            daemon = Daemon(directory, [dovecot, "-F", "-c", directory / "dovecot.conf"])
            daemon.wait_ready(lambda: all(map(machine.listening, ports)), log=directory / "log")
        return cls(daemon, ports)

    def token(self, **claims: object) -> str:
        """Makes an access token for the user, good for an hour; `claims` replace or add to what it says."""
        from joserfc import jwt
        from joserfc.jwk import OctKey

        now = int(time.time())
        # Dovecot refuses a token from the future, and its own clock may lag by a second.
        usual = {"sub": USER, "scope": "smtp", "iat": now - 60, "exp": now + 3600}
        return jwt.encode({"alg": "HS256", "typ": "JWT"}, usual | claims, OctKey.import_key(TOKEN_KEY))

    def messages(self) -> list[bytes]:
        """All messages that LMTP delivered, oldest first."""
        return self.mailbox.messages()

    def wait_for_message(self, substring: str | bytes, count: int = 1, timeout: float = 10) -> list[bytes]:
        """The messages that hold a string, as soon as there are `count` of them."""
        return self.mailbox.wait_for(substring, count, timeout)

    def clear(self) -> None:
        """Forgets the messages, not the log."""
        self.mailbox.clear()

    def log(self) -> str:
        """What Dovecot logged so far."""
        return self.log_file.read_text(errors="replace")

    def stop(self) -> None:
        """Ends it and removes what it had."""
        self._daemon.stop()


def _configure(directory: Path, ports: Ports, pki: Pki, relay_port: int) -> None:
    text = CONF.format(
        directory=directory,
        hostname=HOSTNAME,
        certificate=pki.server.certificate,
        authority=pki.ca_file,
        key=pki.server.key,
        relay_port=relay_port,
        size_limit=SIZE_LIMIT,
        most_recipients=MOST_RECIPIENTS,
        **ports._asdict(),
    )
    (directory / "dovecot.conf").write_text(text)
    (directory / "oauth2.conf").write_text(OAUTH2_CONF.format(directory=directory))
    keys = directory / "keys" / "default" / "HS256"
    keys.mkdir(parents=True)
    (keys / "default").write_bytes(base64.b64encode(TOKEN_KEY.encode()))
    lines = [f"{user}:{{PLAIN}}{PASSWORD}:65534:65534::{directory}/mail/{user}::" for user in USERS]
    lines[USERS.index("full")] += "userdb_quota_rule=*:bytes=1"
    (directory / "users").write_text("\n".join(lines) + "\n")
    mail = directory / "mail"
    mail.mkdir()
    shutil.chown(mail, 65534, 65534)
