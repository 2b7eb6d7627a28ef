"""Makes a client from the options: the server, the user, and a password that is not on the command line.

A password in an argument can be read by every user of the machine (`ps`) and stays in the history of the shell.
Therefore the password is read from a file, from the environment or from a prompt, and an argument that holds one is
refused.
"""

from __future__ import annotations

import getpass
import os
import ssl
import sys
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from ..auth.credentials import Credentials
from ..client.client import SMTPClient
from ..client.options import ClientOptions
from ..errors import FileError, InvalidArgument
from ..model.secret import Secret
from ..oauth.providers import RefreshToken
from ..tls.context import Security
from ..tls.identity import Identity
from ..tls.options import TLSOptions
from ..tls.problems import ChainProblem
from ..tls.revocation_options import RevocationOptions, RevocationPolicy
from ..tls.stores import CertificateStore
from ..tls.trust import TrustOptions
from ..transport.names import AddressFamily
from ..transport.proxy import ProxyOptions, ProxyType
from .configuration import Account
from .options import (
    KEY_PASSWORD_VARIABLE,
    PASSWORD_VARIABLE,
    PROXY_PASSWORD_VARIABLE,
    Access,
    Ignorable,
    Network,
    Revocation,
    TLSVersion,
)

__all__ = ["client_for", "client_for_domain", "first_line", "read_file", "with_network", "with_access"]

_PASSWORD_IN_ARGUMENT: Final = (
    "a password on the command line can be read by every user of this machine and stays in the shell's history: "
    f"leave it out, and give it at the prompt, with --password-file or in {PASSWORD_VARIABLE}"
)


_PROXY_PASSWORD_IN_ARGUMENT: Final = (
    "a password on the command line can be read by every user of this machine and stays in the shell's history: "
    f"leave it out of --proxy, and give it at the prompt or in {PROXY_PASSWORD_VARIABLE}"
)


def client_for(
    server: str, access: Access, options: ClientOptions, account: Account | None = None
) -> SMTPClient:
    """Return a client for a server; the client has not connected yet.

    Args:
        server: `HOST`, `HOST:PORT`, a path or a URL.
        access: TLS and login.
        options: everything else; its TLS options are replaced.
        account: whose passwords are used, if it is an account of the configuration file.

    Raises:
        InvalidArgument: the server cannot be parsed or holds a password, or there is no password for the user.
        FileError: the password file or the token file cannot be read, or the command for a password fails.
        FeatureUnavailable: a token needs an extra that is not installed.
        TLSError: the client certificate or its key cannot be read, or OpenSSL finds no such cipher suite.
    """
    options = with_access(options, access, account)
    host, port, security, options, named = _parsed(server, access.security, options)
    if named and access.user and named != access.user:
        raise InvalidArgument("the user in the URL and --user are not the same")
    user = access.user or named
    if access.oauth is not None:
        credentials = _credentials(access.oauth, user, access.password_file)
        return SMTPClient(host, port, credentials=credentials, security=security, options=options)
    password = None if user is None else _password(user, access.password_file, account)
    if user is None and access.password_file is not None:
        raise InvalidArgument("--password-file needs --user")
    return SMTPClient(host, port, username=user, password=password, security=security, options=options)


def _credentials(oauth: Path, user: str | None, password_file: Path | None) -> Credentials:
    if password_file is not None:
        raise InvalidArgument("--oauth and --password-file exclude each other")
    provider = RefreshToken.from_file(oauth)
    account = user or provider.username
    if not account:
        raise InvalidArgument(f"{oauth} names no account: give it with --user")
    return Credentials(username=account, token=provider)


def _proxy(url: str | None, own_password: Secret | None) -> ProxyOptions | None:
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        user, password = parts.username, parts.password
    except ValueError:
        raise InvalidArgument("--proxy is not a valid URL") from None
    if password is not None:
        raise InvalidArgument(_PROXY_PASSWORD_IN_ARGUMENT)
    bare = ProxyOptions(url=parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
    if not user:
        return bare
    name = unquote(user)
    if bare.type in (ProxyType.SOCKS4, ProxyType.SOCKS4A):
        # A user ID, which has no password.
        return replace(bare, username=name)
    if own_password is None and (variable := os.environ.get(PROXY_PASSWORD_VARIABLE)):
        own_password = Secret(variable)
    if own_password is None:
        own_password = _prompt_for_password(f"{name} at the proxy", PROXY_PASSWORD_VARIABLE)
    return replace(bare, username=name, password=own_password)


def _tls_options(access: Access) -> TLSOptions:
    return TLSOptions(
        trust=TrustOptions(
            ca_file=access.ca_file,
            ca_path=access.ca_path,
            pins=access.pin or (),
            ignore=_ignored(access.ignore or ()),
            revocation=_revocation(access.revocation),
        ),
        identity=_identity(access),
        minimum_version=_version(access.tls_min),
        maximum_version=_version(access.tls_max),
        ciphers=access.ciphers,
    )


def _ignored(problems: Iterable[Ignorable]) -> ChainProblem:
    found = ChainProblem(0)
    for problem in problems:
        found |= ChainProblem[problem.name]
    return found


def _revocation(how: Revocation | None) -> RevocationOptions | None:
    return None if how is None else RevocationOptions(policy=RevocationPolicy[how.name])


def _version(version: TLSVersion | None) -> ssl.TLSVersion | None:
    return None if version is None else ssl.TLSVersion[version.name]


def _identity(access: Access) -> Identity | None:
    if access.cert is None:
        if access.key is not None:
            raise InvalidArgument("--key needs --cert")
        return None
    return identity_from(access.cert, access.key, KEY_PASSWORD_VARIABLE)


def identity_from(certificate: Path, key: Path | None, variable: str) -> Identity:
    """Return the certificate in a file with its key, which may be in another file.

    Args:
        certificate, key: the files; None if the first has both.
        variable: the environment variable with the password.

    Raises:
        SMTPError: a file cannot be read, or does not hold exactly one certificate with its key.
    """
    password = os.environ.get(variable)
    store = CertificateStore.load(certificate, password)
    if key is not None:
        store = store.union(CertificateStore.load(key, password))
    return store.identity()


def client_for_domain(domain: str, access: Access, options: ClientOptions) -> SMTPClient:
    """Return a client for the mail exchangers of a domain.

    Raises:
        InvalidArgument, InvalidHost: it is no domain, or a user is named.
    """
    if access.user:
        raise InvalidArgument("mail exchangers take mail without a login: leave --user out")
    return SMTPClient.for_domain(domain, security=access.security, options=with_access(options, access))


def with_access(options: ClientOptions, access: Access, account: Account | None = None) -> ClientOptions:
    """Return `options` with the TLS options and the proxy of the command line.

    Raises:
        TLSError: the client certificate or its key cannot be read, or OpenSSL finds no such cipher suite.
    """
    # The password is for the proxy that the account names, and for no other.
    own = account is not None and account.defaults.get("proxy") == access.proxy
    secret = account.proxy_password if account is not None and own else None
    return replace(options, tls=_tls_options(access), proxy=_proxy(access.proxy, secret))


def with_network(options: ClientOptions, network: Network) -> ClientOptions:
    """Return `options` with those of the network.

    Raises:
        InvalidArgument: they contradict each other, or the DNS server is no address.
    """
    if network.ipv4 and network.ipv6:
        raise InvalidArgument("-4 and -6 exclude each other")
    family = (
        AddressFamily.IPV4 if network.ipv4 else AddressFamily.IPV6 if network.ipv6 else AddressFamily.AUTO
    )
    servers = () if network.resolver is None else (network.resolver,)
    sockets = replace(options.socket, family=family)
    return replace(options, socket=sockets, dns=replace(options.dns, servers=servers))


_Parsed = tuple[str, int | None, Security, ClientOptions, str | None]


def _parsed(server: str, security: Security, options: ClientOptions) -> _Parsed:
    if "://" in server:
        return _from_url(server, security, options)
    if "@" in server:
        raise InvalidArgument("the user is given with --user, not in --server; the password is asked for")
    host, port = _host_and_port(server)
    return host, port, security, options, None


def _from_url(url: str, security: Security, options: ClientOptions) -> _Parsed:
    try:
        parts = urlsplit(url)
        user, password = parts.username, parts.password
    except ValueError:
        # The URL is not repeated, because it may hold a password.
        raise InvalidArgument("the server is not a valid URL") from None
    if password is not None:
        raise InvalidArgument(_PASSWORD_IN_ARGUMENT)
    if security is not Security.AUTO:
        raise InvalidArgument("the scheme of a URL says when TLS starts: leave --security out")
    # The library parses the rest; this client never connects.
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    read = SMTPClient.from_url(bare, options=options)
    # LMTP uses STARTTLS where offered, but requires it for a login, so AUTO decides again.
    chosen = Security.AUTO if read.options.lmtp and read.port else read.security
    return read.host, read.port or None, chosen, read.options, unquote(user) if user else None


def _host_and_port(text: str) -> tuple[str, int | None]:
    """Read `host`, `host:port`, `[2001:db8::1]:port`, `2001:db8::1` or `/path`."""
    if text.startswith("/"):
        return text, None
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")) or text.endswith("]"):
        host, port = text, ""
    elif not (port.isascii() and port.isdigit()):
        raise InvalidArgument("the server has no port number after its colon")
    return host.removeprefix("[").removesuffix("]"), int(port) if port else None


def read_file(path: Path, what: str) -> bytes:
    """Return the bytes of a file; `-` is standard input.

    Raises:
        FileError: it cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {what} {path}: {error.strerror}") from error


def first_line(file: Path, what: str) -> Secret:
    """Return the first line of a file that holds a secret.

    Raises:
        FileError: it cannot be read.
        InvalidArgument: the line is empty.
    """
    lines = read_file(file, f"{what} file").decode("utf-8", "replace").splitlines()
    if not lines or not lines[0]:
        raise InvalidArgument(f"the first line of {file} is empty: it has to be {what}")
    return Secret(lines[0])


def _password(user: str, file: Path | None, account: Account | None) -> Secret:
    if file is not None:
        return first_line(file, "the password")
    # Before the environment, which may have the password of another account.
    if account is not None and account.user == user and (own := account.password()) is not None:
        return own
    if variable := os.environ.get(PASSWORD_VARIABLE):
        return Secret(variable)
    return _prompt_for_password(user, f"--password-file or {PASSWORD_VARIABLE}")


def _prompt_for_password(user: str, otherwise: str) -> Secret:
    try:
        with warnings.catch_warnings():
            # Without a terminal, getpass would read from a pipe and echo the password.
            warnings.simplefilter("error", getpass.GetPassWarning)
            answer = getpass.getpass(f"Password for {user}: ")
    except (getpass.GetPassWarning, EOFError, OSError):
        raise InvalidArgument(
            f"there is no terminal to ask for the password of {user}: use {otherwise}"
        ) from None
    if not answer:
        raise InvalidArgument("a login needs a password")
    return Secret(answer)
