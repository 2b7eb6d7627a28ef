"""Options that several commands share, so that each is declared, and explained, once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Final

import typer

from ..tls.context import Security

__all__ = [
    "DKIM_PASSWORD_VARIABLE",
    "CLIENT_SECRET_VARIABLE",
    "CONFIG_VARIABLE",
    "KEY_PASSWORD_VARIABLE",
    "PASSWORD_VARIABLE",
    "PROXY_PASSWORD_VARIABLE",
    "SMIME_PASSWORD_VARIABLE",
    "SETTINGS",
    "Access",
    "Expires",
    "Ids",
    "Ignorable",
    "Json",
    "Network",
    "NotBefore",
    "Revocation",
    "Server",
    "SpoolPlace",
    "TLSVersion",
    "Verbose",
]

#: The environment variable that may name the configuration file.
CONFIG_VARIABLE: Final = "SMTP_ASYNC_CONFIG"
#: The environment variable that may hold the password.
PASSWORD_VARIABLE: Final = "SMTP_ASYNC_PASSWORD"
#: The environment variable that may hold the password for the proxy.
PROXY_PASSWORD_VARIABLE: Final = "SMTP_ASYNC_PROXY_PASSWORD"
#: The environment variable that may hold the password of the client certificate's key.
KEY_PASSWORD_VARIABLE: Final = "SMTP_ASYNC_KEY_PASSWORD"
#: The environment variable that may hold the secret of the application that asks for a token.
CLIENT_SECRET_VARIABLE: Final = "SMTP_ASYNC_CLIENT_SECRET"
#: The environment variable that may hold the password of a key for DKIM.
DKIM_PASSWORD_VARIABLE: Final = "SMTP_ASYNC_DKIM_PASSWORD"
#: The environment variable that may hold the password of a key for S/MIME.
SMIME_PASSWORD_VARIABLE: Final = "SMTP_ASYNC_SMIME_PASSWORD"
#: Settings of every command.
SETTINGS: Final = {"help_option_names": ["-h", "--help"]}

# --- the server ----------------------------------------------------------------------------------------------

Server = Annotated[
    str,
    typer.Option(
        metavar="HOST",
        help="HOST, HOST:PORT or a URL: smtp://, smtps://, smtp+plain://, lmtp://, lmtp+unix:///path.",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the dialogue, with secrets masked.")]


class TLSVersion(Enum):
    """The versions of TLS, as they are written on a command line."""

    TLSv1 = "1.0"
    TLSv1_1 = "1.1"
    TLSv1_2 = "1.2"
    TLSv1_3 = "1.3"


class Ignorable(Enum):
    """What `TrustOptions.ignore` may name, as it is written on a command line."""

    TIME = "time"
    NESTED_TIMES = "nested-times"
    UNKNOWN_AUTHORITY = "unknown-authority"
    HOST_NAME = "host-name"
    USAGE = "usage"
    UNKNOWN_REVOCATION = "unknown-revocation"
    UNKNOWN_AUTHORITY_REVOCATION = "unknown-authority-revocation"
    UNKNOWN_ROOT_REVOCATION = "unknown-root-revocation"


class Revocation(Enum):
    """The members of `RevocationPolicy`, as they are written on a command line."""

    NONE = "none"
    AUTO = "auto"
    CRL = "crl"
    OCSP = "ocsp"
    CRL_THEN_OCSP = "crl-then-ocsp"
    OCSP_THEN_CRL = "ocsp-then-crl"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How to get access to the server: TLS, login and proxy."""

    security: Annotated[
        Security,
        typer.Option(
            metavar="WHEN",
            help="When TLS starts: implicit (from the first byte), starttls (required), opportunistic (where offered, "
            "unverified), plaintext, or auto: by port, and required for a login.",
        ),
    ] = Security.AUTO
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="The user name for the login.")
    ] = None
    password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"A file with the password in its first line. Without it, the password is read from "
            f"{PASSWORD_VARIABLE}, or asked for.",
        ),
    ] = None
    oauth: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file of smtp-async token, to log in by OAuth 2.0; it names the user, unless --user does.",
        ),
    ] = None
    proxy: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The proxy on the way to the server: socks5://[USER@]HOST:PORT, socks4://, socks4a://, http:// or "
            f"https://. The password of USER is read from {PROXY_PASSWORD_VARIABLE}, or asked for.",
        ),
    ] = None
    ca_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A PEM file with the certificates to trust instead of the system's."
        ),
    ] = None
    ca_path: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A folder of certificates to trust instead of the system's, as openssl rehash makes it.",
        ),
    ] = None
    pin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHA256",
            help="The fingerprint of a certificate or public key that must be in the server's chain, in hexadecimal or "
            "as sha256//BASE64; may be given several times, and one of them must fit.",
        ),
    ] = None
    ignore: Annotated[
        list[Ignorable] | None,
        typer.Option(
            metavar="PROBLEM",
            help="A problem of the server's certificates that does not count: "
            f"{', '.join(one.value for one in Ignorable)}. May be given several times. An attacker may be let through.",
        ),
    ] = None
    revocation: Annotated[
        Revocation | None,
        typer.Option(
            metavar="HOW",
            help="Where to ask whether the server's certificates were revoked: "
            f"{', '.join(one.value for one in Revocation)}. A state that cannot be found out does not count.",
        ),
    ] = None
    cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A certificate to show to servers that ask for one: a PEM, PKCS#12 (PFX), DER or PKCS#7 file. The "
            f"password of its key is read from {KEY_PASSWORD_VARIABLE}.",
        ),
    ] = None
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The private key of --cert, if that file does not hold it."),
    ] = None
    tls_min: Annotated[
        TLSVersion | None, typer.Option(help="The oldest version of TLS to speak; 1.2 by default.")
    ] = None
    tls_max: Annotated[TLSVersion | None, typer.Option(help="The newest version of TLS to speak.")] = None
    ciphers: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Cipher suites to offer: a list as for OpenSSL, or names as IANA writes them.",
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How names are resolved and which addresses are used."""

    ipv4: Annotated[bool, typer.Option("-4", help="Use IPv4 addresses only.")] = False
    ipv6: Annotated[bool, typer.Option("-6", help="Use IPv6 addresses only.")] = False
    resolver: Annotated[
        str | None,
        typer.Option(
            metavar="SERVER", help="The DNS server to ask: ADDRESS or ADDRESS:PORT. The system's without it."
        ),
    ] = None


# --- the queue -----------------------------------------------------------------------------------------------

SpoolPlace = Annotated[
    str,
    typer.Option(
        "--spool",
        metavar="PATH|URL",
        envvar="SMTP_ASYNC_SPOOL",
        help="The directory where the mail is kept, or a database: postgresql://[USER@]HOST/DATABASE[?schema=NAME]. "
        "Its password is better given by PGPASSWORD or ~/.pgpass than on a command line, which every user can see.",
    ),
]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="The ids of jobs, as add and ls print them.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
NotBefore = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN", help="The earliest time to send it: 2h or 3d from now, or 2030-01-31T08:00+01:00."
    ),
]
Expires = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="The time after which it is not tried any more, in the same forms."),
]
