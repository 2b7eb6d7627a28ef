"""Kerberos: a key distribution centre for the realm LAB.TEST, and what logs in with its tickets."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from tests.servers import PASSWORD, USER, machine
from tests.servers.daemon import Daemon, new_directory

REALM = "LAB.TEST"
#: The service of a server that is connected to as "localhost".
SERVICE = "smtp/localhost"
#: Debian's modules for the Python that comes with it.
DEBIAN_MODULES = Path("/usr/lib/python3/dist-packages")

CLIENT_CONF = """\
[libdefaults]
 default_realm = {realm}
 dns_lookup_realm = false
 dns_lookup_kdc = false
 dns_canonicalize_hostname = false
 rdns = false
 udp_preference_limit = 1
[realms]
 {realm} = {{
  kdc = {host}:{port}
 }}
[domain_realm]
 localhost = {realm}
"""

KDC_CONF = """\
[kdcdefaults]
 kdc_listen = {host}:{port}
 kdc_tcp_listen = {host}:{port}
[realms]
 {realm} = {{
  database_name = {directory}/principal
  key_stash_file = {directory}/stash
  acl_file = {directory}/acl
  supported_enctypes = aes256-cts-hmac-sha1-96:normal
 }}
[logging]
 kdc = FILE:{directory}/log
"""


class Kdc:
    """A running key distribution centre.

    Attributes:
        configuration: What `KRB5_CONFIG` of clients and servers names.
        keytab: The keys of the service smtp/localhost.
        user: The principal that has `password`.
    """

    user = USER
    password = PASSWORD

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.configuration = daemon.directory / "krb5.conf"
        self.keytab = daemon.directory / "keytab"
        self.log_file = daemon.directory / "log"

    @classmethod
    def start(cls) -> "Kdc":
        """Starts one; skips the calling test where that cannot be."""
        krb5kdc = machine.program("krb5kdc")
        programs = [machine.program(name) for name in ("kdb5_util", "kadmin.local", "kinit")]
        machine.require_root("A key distribution centre")
        directory = new_directory("kdc")
        with machine.reserved_ports(1) as (port,):
            for name, text in (("krb5.conf", CLIENT_CONF), ("kdc.conf", KDC_CONF)):
                values = {"realm": REALM, "host": machine.HOST, "port": port, "directory": directory}
                (directory / name).write_text(text.format(**values))
            environment = {
                "KRB5_CONFIG": str(directory / "krb5.conf"),
                "KRB5_KDC_PROFILE": str(directory / "kdc.conf"),
            }
            _fill_database(directory, environment, *programs[:2])
            words = [f"{name}={value}" for name, value in environment.items()]
            daemon = Daemon(directory, [machine.program("env"), *words, krb5kdc, "-n"])
            daemon.wait_ready(lambda: machine.listening(port), log=directory / "log")
        return cls(daemon)

    def ticket(self, cache: Path) -> dict[str, str]:
        """Gets a ticket for the user; returns the environment in which GSSAPI finds it."""
        environment = {"KRB5_CONFIG": str(self.configuration), "KRB5CCNAME": f"FILE:{cache}"}
        _run([machine.program("kinit"), self.user], environment, f"{self.password}\n")
        return environment

    def log(self) -> str:
        """What it logged so far."""
        return self.log_file.read_text(errors="replace")

    def stop(self) -> None:
        """Ends it and removes what it had."""
        self._daemon.stop()


def _fill_database(directory: Path, environment: dict[str, str], kdb5_util: Path, kadmin: Path) -> None:
    _run([kdb5_util, "create", "-r", REALM, "-s", "-P", "master"], environment)
    keytab = directory / "keytab"
    _run(
        [kadmin],
        environment,
        f"addprinc -pw {PASSWORD} {USER}\naddprinc -randkey {SERVICE}\nktadd -k {keytab} {SERVICE}\n",
    )
    # The mail servers read it with rights of their own.
    keytab.chmod(0o644)


def _run(command: list[str | Path], environment: dict[str, str], lines: str = "") -> None:
    done = subprocess.run(command, env=environment, input=lines, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")


def find_gssapi(directory: Path) -> None:
    """Makes `import gssapi` work, with Debian's python3-gssapi if need be; skips the test where it cannot.

    Building the module takes minutes and has no wheel. Debian's is built for Debian's Python, and runs in any CPython
    of that version. Nothing else of Debian's modules becomes importable.

    Args:
        directory: where the links to the module may be made.
    """
    if importlib.util.find_spec("gssapi") is not None:
        return
    suffix = f".cpython-{sys.version_info.major}{sys.version_info.minor}-"
    if not any(suffix in path.name for path in DEBIAN_MODULES.glob("gssapi/raw/*.so")):
        machine.unavailable(f"gssapi is neither installed nor in {DEBIAN_MODULES} for this Python")
    for name in ("gssapi", "decorator.py"):
        (directory / name).symlink_to(DEBIAN_MODULES / name)
    sys.path.append(str(directory))
    importlib.invalidate_caches()
