"""PostgreSQL, and PgBouncer in front of it, which gives each transaction another connection.

The data are in memory where the machine has a file system there, so that a test does not wait for a disk.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from tests.servers import machine
from tests.servers.daemon import Daemon, new_directory
from tests.servers.machine import listening

MEMORY = Path("/dev/shm")
PREFIX = "smtp-async-postgres-"
#: A file in the directory of a server that its owner has locked, as long as it lives.
OWNER = "owner"
#: The connections that the tests of several processes may need.
CONNECTIONS = 120

PGBOUNCER = """\
[databases]
* = host={host} port={port} user=postgres
[pgbouncer]
listen_addr = {host}
listen_port = {own}
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
ignore_startup_parameters = extra_float_digits
unix_socket_dir =
logfile = {directory}/log
pidfile = {directory}/pid
"""


def programs() -> Path:
    """Where the programs of PostgreSQL are; without them the test that asked is skipped."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        return machine.program("postgres").parent
    return found[-1].parent


def as_server(command: list[str]) -> list[str]:
    """The command, for the user that PostgreSQL runs as: it refuses root."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]


def remove_abandoned(parent: Path) -> None:
    """Removes what servers left behind whose owners were killed."""
    for lock in parent.glob(f"{PREFIX}*/{OWNER}"):
        try:
            with lock.open("rb") as file:
                machine.lock(file, wait=False)
                shutil.rmtree(lock.parent, ignore_errors=True)
        except OSError:
            # Its owner lives, or another session has just removed it.
            continue


class Postgres:
    """A running server, whose superuser needs no password.

    Attributes:
        host: Where it listens.
        port: Its port.
        user: The superuser.
        password: That of the users whom `add_user` makes; they need it.
    """

    host = machine.HOST
    user = "postgres"
    password = "canary-of-postgres"

    def __init__(self, directory: Path, port: int, lock: IO[bytes]) -> None:
        self.directory = directory
        self.port = port
        self._lock = lock
        self._daemon: Daemon | None = None

    @classmethod
    def start(cls, *, in_memory: bool = True) -> "Postgres":
        """Starts one; skips the calling test where that cannot be. A benchmark wants the data on a disk."""
        binaries = programs()
        parent = MEMORY if in_memory and os.access(MEMORY, os.W_OK) else None
        remove_abandoned(parent or Path(tempfile.gettempdir()))
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        directory.chmod(0o755)
        lock = (directory / OWNER).open("wb")
        machine.lock(lock)
        data = directory / "data"
        data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            subprocess.run(["chown", "postgres", data], check=True)
        initdb = [
            f"{binaries}/initdb",
            "-A",
            "trust",
            "-U",
            cls.user,
            "-E",
            "UTF8",
            "--locale=C",
            "-D",
            f"{data}",
        ]
        subprocess.run(as_server(initdb), check=True, capture_output=True, cwd=data)
        access = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (data / "pg_hba.conf").write_text(access)
        with machine.reserved_ports(1) as (port,):
            server = cls(directory, port, lock)
            server._run()
        return server

    def _run(self) -> None:
        data = self.directory / "data"
        settings = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": str(CONNECTIONS),
            "shared_buffers": "64MB",
            "wal_level": "replica",
            "max_wal_size": "256MB",
            "autovacuum_naptime": "5s",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        guarded = new_directory("postgres-run")
        self._daemon = Daemon(guarded, as_server([f"{programs()}/postgres", "-D", f"{data}", *options]))
        self._daemon.wait_ready(self._answers, timeout=60)

    def _answers(self) -> bool:
        if not listening(self.port):
            return False
        return (
            subprocess.run(
                [programs() / "pg_isready", "-q", "-h", self.host, "-p", str(self.port)], check=False
            ).returncode
            == 0
        )

    @property
    def leader(self) -> int:
        """The process that the others descend from."""
        return int((self.directory / "data/postmaster.pid").read_text().split()[0])

    def crash(self) -> None:
        """Ends the server at once, as `pg_ctl stop -m immediate` does: nothing is written any more."""
        assert self._daemon is not None
        os.kill(self.leader, 3)
        machine.wait_until(
            lambda: bool(self._daemon and self._daemon.ended), timeout=30, what=lambda: "it runs"
        )
        self._daemon.stop()
        self._daemon = None

    def go_on(self) -> None:
        """Starts the server again, on the same port."""
        # The kernel may still hold the port for connections that were cut.
        machine.wait_until(lambda: not listening(self.port), timeout=10, what=lambda: "the port is taken")
        self._run()

    def url(self, database: str = "postgres", *, user: str | None = None, port: int | None = None) -> str:
        """The URL of a database."""
        login = self.user if user is None else f"{user}:{self.password}"
        return f"postgresql://{login}@{self.host}:{port or self.port}/{database}"

    def stop(self) -> None:
        """Ends it, and removes its data."""
        if self._daemon is not None:
            self._daemon.stop()
        subprocess.run(["rm", "-rf", self.directory], check=True)
        self._lock.close()


class PgBouncer:
    """A running PgBouncer that pools transactions.

    Attributes:
        host: Where it listens.
        port: Its port.
    """

    host = machine.HOST

    def __init__(self, daemon: Daemon, port: int) -> None:
        self._daemon = daemon
        self.port = port

    @classmethod
    def start(cls, server: Postgres) -> "PgBouncer":
        """Starts one in front of a server; skips the calling test where that cannot be."""
        program = machine.program("pgbouncer")
        directory = new_directory("pgbouncer")
        directory.chmod(0o777)
        with machine.reserved_ports(1) as (port,):
            settings = directory / "ini"
            settings.write_text(
                PGBOUNCER.format(host=cls.host, port=server.port, own=port, directory=directory)
            )
            daemon = Daemon(directory, as_server([f"{program}", f"{settings}"]))
            daemon.wait_ready(lambda: listening(port))
        return cls(daemon, port)

    def stop(self) -> None:
        """Ends it."""
        self._daemon.stop()
