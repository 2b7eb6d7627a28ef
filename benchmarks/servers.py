"""The servers that benchmarks send to, started as the tests start theirs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.rivals import Unavailable
from tests.servers import machine
from tests.servers.daemon import Daemon, new_directory
from tests.servers.postgres import Postgres
from tests.servers.sink import Sink


@contextmanager
def sink(*options: str) -> Iterator[Sink]:
    """Run smtp-sink, which takes everything as fast as it comes.

    Raises:
        Unavailable: it is not installed, or we are not root.
    """
    try:
        server = Sink.start(*options)
    except pytest.skip.Exception as error:
        raise Unavailable(str(error)) from None
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run PostgreSQL with its data on the disk.

    Raises:
        Unavailable: it is not installed.
    """
    try:
        server = Postgres.start(in_memory=False)
    except pytest.skip.Exception as error:
        raise Unavailable(str(error)) from None
    try:
        yield server
    finally:
        server.stop()


def program(name: str) -> Path:
    """Return where a program is.

    Raises:
        Unavailable: it is not installed.
    """
    try:
        return machine.program(name)
    except pytest.skip.Exception as error:
        raise Unavailable(str(error)) from None


_MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/log
maillog_file_prefixes = {directory}
inet_interfaces = {address}
inet_protocols = ipv4
myhostname = mx.lab.test
mydestination =
mynetworks = {network}
alias_maps =
alias_database =
default_transport = discard:
smtpd_relay_restrictions = permit_mynetworks, reject
# No name server at this end of the link.
smtpd_peername_lookup = no
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
# Else Postfix takes a pause of a second now and then, so that its queue manager can follow.
in_flow_delay = 0
"""

_MASTER_CF = """\
{address}:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


@contextmanager
def postfix(address: str, port: int, network: str, *, prefix: tuple[str, ...] = ()) -> Iterator[None]:
    """Run a real Postfix that discards what it has accepted.

    Args:
        address, port: where it listens.
        network: whose mail it takes.
        prefix: what to put before its command, to start it in a network namespace.

    Raises:
        Unavailable: it is not installed, or we are not root.
    """
    command: list[str | Path] = [*prefix, program("postfix"), "-c"]
    if os.geteuid() != 0:
        raise Unavailable("Postfix can only be started by root")
    directory = new_directory("bench-postfix")
    for name in ("etc", "queue", "data"):
        (directory / name).mkdir()
    shutil.chown(directory / "data", "postfix", "postfix")
    main = _MAIN_CF.format(directory=directory, address=address, network=network)
    (directory / "etc" / "main.cf").write_text(main)
    (directory / "etc" / "master.cf").write_text(_MASTER_CF.format(address=address, port=port))
    log = directory / "log"
    daemon = Daemon(directory, [*command, directory / "etc", "start-fg"])
    daemon.wait_ready(lambda: log.exists() and "daemon started" in log.read_text(errors="replace"), log=log)
    try:
        yield
    finally:
        daemon.stop()
