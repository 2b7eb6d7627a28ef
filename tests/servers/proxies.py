"""Real proxies on 127.0.0.1: Dante (SOCKS), tinyproxy and Squid (CONNECT), and the dynamic forwarding of OpenSSH."""

import hashlib
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

from tests.servers import PASSWORD, USER, machine
from tests.servers.daemon import Daemon, new_directory
from tests.servers.pki import Pki

DANTE_CONF = """\
logoutput: stderr
internal: 127.0.0.1 port = {port}
external: lo
clientmethod: none
socksmethod: {method}
user.privileged: root
user.unprivileged: nobody
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks pass {{ from: 127.0.0.0/8 to: 127.0.0.0/8 {rule} }}
"""

TINYPROXY_CONF = """\
Port {port}
Listen 127.0.0.1
Timeout 600
MaxClients 100
Allow 127.0.0.0/8
{login}
"""

SQUID_CONF = """\
http_port 127.0.0.1:{open} name=open
http_port 127.0.0.1:{login} name=login
https_port 127.0.0.1:{tls} name=tls tls-cert={certificate} tls-key={key}
pid_filename {directory}/squid.pid
cache deny all
access_log stdio:{directory}/access.log
cache_log {directory}/cache.log
coredump_dir {directory}
netdb_filename none
shutdown_lifetime 0 seconds
visible_hostname squid.lab.test
auth_param digest program {helpers}/digest_file_auth -c {directory}/digest
auth_param digest realm lab
auth_param ntlm program {helpers}/ntlm_fake_auth
auth_param basic program {helpers}/basic_ncsa_auth {directory}/users
auth_param basic realm lab
acl here dst 127.0.0.0/8
acl free myportname open
acl known proxy_auth REQUIRED
http_access deny !here
http_access allow free
http_access allow known
http_access deny all
"""

SSHD_CONF = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/user.pub
StrictModes no
PermitRootLogin prohibit-password
PidFile {directory}/sshd.pid
UsePAM no
"""

HELPERS = ("/usr/lib/squid", "/usr/lib64/squid", "/usr/libexec/squid")


class Dante:
    """A running Dante: SOCKS4 and SOCKS5 without a login, SOCKS5 with user name and password.

    Attributes:
        host: Where it listens.
        open_port: SOCKS4 and SOCKS5 for everyone.
        login_port: SOCKS5 for `user` with `password`; the account exists in Dante's own view of /etc alone.
    """

    host = machine.HOST
    user = USER
    password = PASSWORD

    def __init__(self, daemons: list[Daemon], open_port: int, login_port: int) -> None:
        self._daemons = daemons
        self.open_port, self.login_port = open_port, login_port

    @classmethod
    def start(cls) -> "Dante":
        """Starts both; skips the calling test where that cannot be."""
        danted, unshare = machine.program("danted"), machine.program("unshare")
        machine.require_root("Dante")
        if subprocess.run([unshare, "-m", "true"], capture_output=True).returncode:
            machine.unavailable("this machine gives no process its own view of /etc")
        with machine.reserved_ports(2) as ports:
            daemons = [
                _dante(danted, unshare, port, method)
                for port, method in zip(ports, ("none", "username"), strict=True)
            ]
        return cls(daemons, *ports)

    def stop(self) -> None:
        """Ends both."""
        for daemon in self._daemons:
            daemon.stop()


def _dante(danted: Path, unshare: Path, port: int, method: str) -> Daemon:
    directory = new_directory("dante")
    rule = "protocol: tcp" if method == "none" else f"socksmethod: {method}"
    (directory / "danted.conf").write_text(DANTE_CONF.format(port=port, method=method, rule=rule))
    users = Path("/etc/passwd").read_text() + f"{USER}:x:64999:65534::/nonexistent:/usr/sbin/nologin\n"
    (directory / "passwd").write_text(users)
    (directory / "shadow").write_text(f"root:*:1:::::\n{USER}:{_hashed('-6')}:1:0:99999:7:::\n")
    script = (
        "mount --bind passwd /etc/passwd && mount --bind shadow /etc/shadow && exec $0 -f danted.conf -p pid"
    )
    daemon = Daemon(directory, [unshare, "-m", "sh", "-c", script, danted])
    daemon.wait_ready(lambda: machine.listening(port))
    return daemon


def _hashed(kind: str) -> str:
    openssl = machine.program("openssl")
    made = subprocess.run([openssl, "passwd", kind, PASSWORD], check=True, capture_output=True, text=True)
    return made.stdout.strip()


class Tinyproxy:
    """A running tinyproxy: CONNECT in HTTP/1.0, which closes the connection after a 407.

    Attributes:
        host: Where it listens.
        open_port: CONNECT for everyone.
        login_port: CONNECT for `user` with `password` (Basic).
    """

    host = machine.HOST
    user = USER
    password = PASSWORD

    def __init__(self, daemons: list[Daemon], open_port: int, login_port: int) -> None:
        self._daemons = daemons
        self.open_port, self.login_port = open_port, login_port

    @classmethod
    def start(cls) -> "Tinyproxy":
        """Starts both; skips the calling test where that cannot be."""
        tinyproxy = machine.program("tinyproxy")
        logins = ("", f"BasicAuth {USER} {PASSWORD}")
        daemons = []
        with machine.reserved_ports(2) as ports:
            for port, login in zip(ports, logins, strict=True):
                directory = new_directory("tinyproxy")
                (directory / "conf").write_text(TINYPROXY_CONF.format(port=port, login=login))
                daemons.append(Daemon(directory, [tinyproxy, "-d", "-c", directory / "conf"]))
                daemons[-1].wait_ready(partial(machine.listening, port))
        return cls(daemons, *ports)

    def stop(self) -> None:
        """Ends both."""
        for daemon in self._daemons:
            daemon.stop()


class Squid:
    """A running Squid: CONNECT with and without a login, over TCP and over TLS.

    Attributes:
        host: Where it listens.
        open_port: CONNECT for everyone.
        login_port: CONNECT for `user` with `password`, by Digest or Basic; NTLM lets in everyone who speaks it.
        tls_port: The same as `login_port` over TLS, with the certificate of `Pki.server`.
    """

    host = machine.HOST
    user = USER
    password = PASSWORD

    def __init__(self, daemon: Daemon, open_port: int, login_port: int, tls_port: int) -> None:
        self._daemon = daemon
        self.open_port, self.login_port, self.tls_port = open_port, login_port, tls_port

    @classmethod
    def start(cls, pki: Pki) -> "Squid":
        """Starts it; skips the calling test where that cannot be."""
        squid = machine.program("squid")
        machine.require_root("Squid")
        helpers = next((path for path in HELPERS if Path(path, "digest_file_auth").exists()), None)
        if helpers is None:
            machine.unavailable("Squid's login helpers are not where they are looked for")
        directory = new_directory("squid")
        _squid_users(directory)
        with machine.reserved_ports(3) as ports:
            conf = SQUID_CONF.format(
                directory=directory,
                helpers=helpers,
                certificate=shutil.copy(pki.server.certificate, directory / "crt"),
                key=shutil.copy(pki.server.key, directory / "key"),
                **dict(zip(("open", "login", "tls"), ports, strict=True)),
            )
            (directory / "squid.conf").write_text(conf)
            for path in (directory, *directory.iterdir()):
                shutil.chown(path, "proxy", "proxy")
            # A name of its own: that of its shared memory.
            command: list[str | Path] = [squid, "-N", "-n", f"t{ports[0]}", "-f", directory / "squid.conf"]
            daemon = Daemon(directory, command)
            daemon.wait_ready(lambda: all(map(machine.listening, ports)), log=directory / "cache.log")
        return cls(daemon, *ports)

    def stop(self) -> None:
        """Ends it and removes what it had."""
        self._daemon.stop()


def _squid_users(directory: Path) -> None:
    (directory / "users").write_text(f"{USER}:{_hashed('-apr1')}\n")
    digest = hashlib.md5(f"{USER}:lab:{PASSWORD}".encode(), usedforsecurity=False).hexdigest()
    (directory / "digest").write_text(f"{USER}:lab:{digest}\n")


class SshForwarding:
    """`ssh -D`: SOCKS4, SOCKS4a and SOCKS5 without a login; of these servers the only one that knows SOCKS4a.

    Attributes:
        host: Where it listens.
        port: Its port.
    """

    host = machine.HOST

    def __init__(self, sshd: Daemon, ssh: Daemon, port: int) -> None:
        self._daemons = (ssh, sshd)
        self.port = port

    @classmethod
    def start(cls) -> "SshForwarding":
        """Starts a server and a client for it; skips the calling test where that cannot be."""
        sshd, ssh, keygen = map(machine.program, ("sshd", "ssh", "ssh-keygen"))
        machine.require_root("sshd")
        directory, client = new_directory("sshd"), new_directory("ssh")
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        for path in (directory / "host", client / "user"):
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        shutil.copy(client / "user.pub", directory)
        with machine.reserved_ports(2) as (server_port, port):
            (directory / "conf").write_text(SSHD_CONF.format(port=server_port, directory=directory))
            server = Daemon(directory, [sshd, "-D", "-e", "-f", directory / "conf"])
            server.wait_ready(lambda: machine.listening(server_port))
            options = ["StrictHostKeyChecking=no", f"UserKnownHostsFile={client}/known", "IdentitiesOnly=yes"]
            command: list[str | Path] = [ssh, "-F", "none", "-N", "-D", f"{machine.HOST}:{port}"]
            command += ["-p", str(server_port)]
            command += ["-i", client / "user", *(word for option in options for word in ("-o", option))]
            forwarding = Daemon(client, [*command, f"root@{machine.HOST}"])
            forwarding.wait_ready(lambda: machine.listening(port))
        return cls(server, forwarding, port)

    def stop(self) -> None:
        """Ends both."""
        for daemon in self._daemons:
            daemon.stop()
