"""An authority of `openssl ca`, its OCSP responder `openssl ocsp`, and its CRL on a web server of Python's."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.servers.daemon import Daemon, new_directory
from tests.servers.machine import HOST, program, reserved_ports

CONFIG = """\
[ca]
default_ca=lab
[lab]
database={directory}/index.txt
new_certs_dir={directory}
serial={directory}/serial
crlnumber={directory}/crlnumber
certificate={directory}/ca.crt
private_key={directory}/ca.key
default_md=sha256
default_days=30
default_crl_days=7
policy=any
unique_subject=no
[any]
commonName=supplied
[req]
distinguished_name=dn
prompt=no
[dn]
CN=unused
[authority]
basicConstraints=critical,CA:true
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
[server]
basicConstraints=CA:false
keyUsage=critical,digitalSignature,keyEncipherment
extendedKeyUsage=serverAuth
subjectAltName=DNS:localhost,IP:127.0.0.1
authorityInfoAccess=OCSP;URI:http://127.0.0.1:{ocsp_port}/
crlDistributionPoints=URI:http://127.0.0.1:{crl_port}/ca.crl
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
[responder]
basicConstraints=CA:false
keyUsage=critical,digitalSignature
extendedKeyUsage=critical,OCSPSigning
1.3.6.1.5.5.7.48.1.5=ASN1:NULL
authorityKeyIdentifier=keyid
"""


class OpenSSLAuthority:
    """An authority in a directory, with the certificates `server.crt` and `revoked.crt`.

    Attributes:
        directory: where its files are, in PEM.
    """

    def __init__(self, directory: Path, *, ocsp_port: int, crl_port: int) -> None:
        self.directory = directory
        self._openssl = program("openssl")
        config = CONFIG.format(directory=directory, ocsp_port=ocsp_port, crl_port=crl_port)
        (directory / "ca.cnf").write_text(config)
        (directory / "index.txt").touch()
        for name in ("serial", "crlnumber"):
            (directory / name).write_text("1000\n")
        self._key("ca")
        authority = "req -x509 -new -key ca.key -config ca.cnf -extensions authority -days 30 -out ca.crt"
        self._run(*authority.split(), "-subj", "/CN=Lab CA")
        for name, section in (("server", "server"), ("revoked", "server"), ("responder", "responder")):
            self._issue(name, section)
        self._run("ca", "-config", "ca.cnf", "-revoke", "revoked.crt", "-crl_reason", "keyCompromise")
        self._run("ca", "-config", "ca.cnf", "-gencrl", "-out", "ca.pem")
        self._run("crl", "-in", "ca.pem", "-outform", "DER", "-out", "ca.crl")

    def _key(self, name: str) -> None:
        self._run(*f"ecparam -name prime256v1 -genkey -noout -out {name}.key".split())

    def _issue(self, name: str, section: str) -> None:
        self._key(name)
        self._run(*f"req -new -key {name}.key -config ca.cnf -subj /CN={name} -out {name}.csr".split())
        issue = f"ca -batch -notext -config ca.cnf -extensions {section} -in {name}.csr -out {name}.crt"
        self._run(*issue.split())

    def _run(self, *words: str) -> None:
        command: list[str | Path] = [self._openssl, *words]
        subprocess.run(command, cwd=self.directory, check=True, capture_output=True, timeout=15)


@contextlib.contextmanager
def openssl_authority() -> Iterator[OpenSSLAuthority]:
    """Run an authority with its responder and its web server."""
    with contextlib.ExitStack() as stack:
        with reserved_ports(2) as (ocsp_port, crl_port):
            authority = OpenSSLAuthority(new_directory("ocsp"), ocsp_port=ocsp_port, crl_port=crl_port)
            words = f"ocsp -port {ocsp_port} -index index.txt -CA ca.crt -rsigner responder.crt -rkey responder.key"
            responder: list[str | Path] = [program("openssl"), *words.split(), "-nmin", "60", "-ignore_err"]
            web: list[str | Path] = [sys.executable, "-m", "http.server", "--bind", HOST, str(crl_port)]
            stack.callback(shutil.rmtree, authority.directory)
            started = [Daemon(_copy(authority), command) for command in (web, responder)]
            for daemon in started:
                stack.callback(daemon.stop)
            started[0].wait_ready(lambda: _listens(crl_port))
            # A connection without a request would block OpenSSL's responder for ever.
            started[1].wait_ready(
                lambda: b"waiting for OCSP client connections" in started[1].output.read_bytes()
            )
        yield authority


def _copy(authority: OpenSSLAuthority) -> Path:
    """Return a directory with the same files: a daemon removes its own."""
    directory = new_directory("ocsp")
    for file in authority.directory.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    return directory


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False
