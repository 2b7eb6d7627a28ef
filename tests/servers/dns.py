"""DNS: NSD, which has the zones, and Unbound in front of it, which validates them.

===============  ============================================================
``lab.test``     signed, and valid
``plain.test``   the same records, not signed
``bogus.test``   the same records, signed, and every signature is wrong
===============  ============================================================
"""

import subprocess
from pathlib import Path

from tests.servers import machine
from tests.servers.daemon import Daemon, new_directory
from tests.servers.machine import listening

#: The longest chain of aliases that is followed, and one that is longer.
CHAIN, LONG_CHAIN = 8, 9
#: The addresses of a name whose answer does not fit into a datagram.
MANY = 150

RECORDS = f"""\
$ORIGIN {{zone}}.
$TTL 60
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
@ MX 10 mail
@ MX 20 mail2
@ MX 20 mail3
mail A 127.0.0.1
mail AAAA ::1
mail2 A 127.0.0.2
mail3 A 127.0.0.3
v4 A 127.0.0.1
v6 AAAA ::1
null MX 0 .
nomx A 127.0.0.1
; An MX whose first host has no address, whose second refuses, whose third takes.
failover MX 5 nowhere
failover MX 10 mail2
failover MX 20 mail
inner MX 10 mail
; One dead and one live address of each family: nothing answers at 127.0.0.2, and 2001:db8::/32 is documentation.
mixed A 127.0.0.2
mixed A 127.0.0.1
mixed AAAA 2001:db8::1
mixed AAAA ::1
alias CNAME mail
{"".join(f"chain{n} CNAME chain{n - 1}{chr(10)}" for n in range(1, LONG_CHAIN + 1))}chain0 CNAME mail
loop-a CNAME loop-b
loop-b CNAME loop-a
dangling CNAME nothing
zero A 0.0.0.0
{"".join(f"many A 127.1.0.{n}{chr(10)}" for n in range(1, MANY + 1))}_submission._tcp SRV 0 1 2587 mail
_submissions._tcp SRV 0 1 2465 mail
_submissions._tcp.weights SRV 10 0 465 c.weights
_submissions._tcp.weights SRV 0 50 465 a.weights
_submissions._tcp.weights SRV 0 50 465 b.weights
_submission._tcp.none SRV 0 0 0 .
_submissions._tcp.none SRV 0 0 0 .
xn--bcher-kva MX 10 mail
"""

NSD_CONF = """\
server:
  ip-address: 127.0.0.1@{port}
  server-count: 1
  username: ""
  chroot: ""
  database: ""
  zonesdir: "{directory}"
  pidfile: "{directory}/nsd.pid"
  xfrdfile: "{directory}/xfrd.state"
  zonelistfile: "{directory}/zone.list"
remote-control:
  control-enable: no
"""
UNBOUND_CONF = """\
server:
  directory: "{directory}"
  chroot: ""
  username: ""
  pidfile: "{directory}/unbound.pid"
  use-syslog: no
  num-threads: 1
  interface: 127.0.0.1@{port}
  do-ip6: no
  module-config: "validator iterator"
  do-not-query-localhost: no
  local-zone: "test." nodefault
  domain-insecure: "plain.test"
  trust-anchor-file: "{directory}/lab.test.anchor"
  trust-anchor-file: "{directory}/bogus.test.anchor"
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@1
"""
ZONES = ("lab.test", "plain.test", "bogus.test")


class Dns:
    """A running NSD with a running Unbound.

    Attributes:
        server: Address and port of Unbound, which resolves and validates.
        authority: Address and port of NSD, which does not answer for other zones, and follows no alias out of one.
    """

    def __init__(self, nsd: Daemon, unbound: Daemon, authority: int, port: int) -> None:
        self._daemons = (unbound, nsd)
        self.authority = f"{machine.HOST}:{authority}"
        self.server = f"{machine.HOST}:{port}"

    @classmethod
    def start(cls) -> "Dns":
        """Starts both; skips the calling test where that cannot be."""
        nsd, unbound = machine.program("nsd"), machine.program("unbound")
        sign, generate = machine.program("ldns-signzone"), machine.program("ldns-keygen")
        directory, above = new_directory("nsd"), new_directory("unbound")
        with machine.reserved_ports(2) as (authority, port):
            _write_zones(directory, above, sign, generate)
            zones = "".join(f"zone:\n  name: {zone}\n  zonefile: {zone}.zone\n" for zone in ZONES)
            (directory / "nsd.conf").write_text(NSD_CONF.format(directory=directory, port=authority) + zones)
            stubs = "".join(
                f"stub-zone:\n  name: {zone}\n  stub-addr: 127.0.0.1@{authority}\n" for zone in ZONES
            )
            (above / "unbound.conf").write_text(UNBOUND_CONF.format(directory=above, port=port) + stubs)
            below = Daemon(directory, [nsd, "-d", "-c", directory / "nsd.conf"])
            below.wait_ready(lambda: listening(authority))
            daemon = Daemon(above, [unbound, "-d", "-c", above / "unbound.conf"])
            try:
                daemon.wait_ready(lambda: listening(port))
            except RuntimeError:
                below.stop()
                raise
        return cls(below, daemon, authority, port)

    def stop(self) -> None:
        """Ends both."""
        for daemon in self._daemons:
            daemon.stop()


def _write_zones(directory: Path, above: Path, sign: Path, generate: Path) -> None:
    for zone in ZONES:
        file = directory / f"{zone}.zone"
        file.write_text(RECORDS.format(zone=zone))
        if zone == "plain.test":
            continue
        keys = [_new_key(directory, generate, zone, *options) for options in (["-k"], [])]
        subprocess.run(
            [sign, "-n", "-o", zone, file.name, *keys], cwd=directory, check=True, capture_output=True
        )
        signed = (directory / f"{zone}.zone.signed").read_text()
        file.write_text(_spoilt(signed) if zone == "bogus.test" else signed)
        (above / f"{zone}.anchor").write_text((directory / f"{keys[0]}.key").read_text())


def _new_key(directory: Path, generate: Path, zone: str, *options: str) -> str:
    # /dev/urandom, because ldns-keygen reads /dev/random otherwise, which may wait.
    command: list[str | Path] = [generate, *options, "-a", "ECDSAP256SHA256", "-r", "/dev/urandom", zone]
    made = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True)
    return made.stdout.strip()


def _spoilt(zone: str) -> str:
    """The zone with every signature changed, except those of its keys."""
    lines = zone.splitlines()
    for place, line in enumerate(lines):
        if "RRSIG" in line.split() and "DNSKEY" not in line.split():
            head, signature = line.rsplit(maxsplit=1)
            lines[place] = f"{head} {'A' * 8}{signature[8:]}"
    return "\n".join(lines) + "\n"
