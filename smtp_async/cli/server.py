"""From what was typed to a client: the server, the user, and a password that was not typed there.

A password in an argument can be read by everybody on the machine (`ps`) and stays in the history of the shell. So it
is taken from a file, from the environment or from a prompt, and an argument that holds one is refused.
"""

from __future__ import annotations

import getpass
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from ..client.client import SMTPClient
from ..client.options import ClientOptions
from ..errors import FileError, InvalidArgument
from ..model.secret import Secret
from ..tls.context import Security, TLSOptions, TrustOptions

__all__ = ["PASSWORD_VARIABLE", "client_for", "read_file"]

PASSWORD_VARIABLE: Final = "SMTP_ASYNC_PASSWORD"

_NO_PASSWORD_HERE: Final = (
    "a password on the command line can be read by everybody on this machine and stays in the shell's history: "
    f"leave it out, and give it at the prompt, with --password-file or in {PASSWORD_VARIABLE}"
)


def client_for(
    server: str,
    *,
    security: Security = Security.AUTO,
    user: str | None = None,
    password_file: Path | None = None,
    ca_file: Path | None = None,
    options: ClientOptions | None = None,
) -> SMTPClient:
    """Return a client for `HOST`, `HOST:PORT`, a path or a URL; it has not connected yet.

    Raises:
        InvalidArgument: the server cannot be understood, holds a password, or there is no password to be had.
        FileError: the password file cannot be read.
    """
    options = replace(options or ClientOptions(), tls=TLSOptions(trust=TrustOptions(ca_file=ca_file)))
    host, port, security, options, named = _place(server, security, options)
    if named and user and named != user:
        raise InvalidArgument("the user in the URL and --user are not the same")
    user = user or named
    password = None if user is None else _password(user, password_file)
    if user is None and password_file is not None:
        raise InvalidArgument("--password-file needs --user")
    return SMTPClient(host, port, username=user, password=password, security=security, options=options)


_Place = tuple[str, int | None, Security, ClientOptions, str | None]


def _place(server: str, security: Security, options: ClientOptions) -> _Place:
    if "://" in server:
        return _from_url(server, security, options)
    if "@" in server:
        raise InvalidArgument("the user is given with --user, not in --server; the password is asked for")
    host, port = _host_and_port(server)
    return host, port, security, options, None


def _from_url(url: str, security: Security, options: ClientOptions) -> _Place:
    try:
        parts = urlsplit(url)
        user, password = parts.username, parts.password
    except ValueError:
        # Not repeated: it may hold a password.
        raise InvalidArgument("the server is not a URL that can be understood") from None
    if password is not None:
        raise InvalidArgument(_NO_PASSWORD_HERE)
    if security is not Security.AUTO:
        raise InvalidArgument("a URL says by its scheme when TLS starts: leave --security out")
    # The library reads the rest; this client is thrown away, it has not connected.
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    read = SMTPClient.from_url(bare, options=options)
    # LMTP takes STARTTLS where it is offered, but requires it for a login: AUTO decides again.
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
        raise InvalidArgument("what stands behind the colon of the server is a port number")
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


def _password(user: str, file: Path | None) -> Secret:
    if file is not None:
        lines = read_file(file, "the password file").decode("utf-8", "replace").splitlines()
        if not lines or not lines[0]:
            raise InvalidArgument(f"the first line of {file} is empty: the password stands there")
        return Secret(lines[0])
    if variable := os.environ.get(PASSWORD_VARIABLE):
        return Secret(variable)
    return _asked(user)


def _asked(user: str) -> Secret:
    try:
        with warnings.catch_warnings():
            # Without a terminal getpass would read from a pipe and show what it reads.
            warnings.simplefilter("error", getpass.GetPassWarning)
            answer = getpass.getpass(f"Password for {user}: ")
    except (getpass.GetPassWarning, EOFError, OSError):
        raise InvalidArgument(
            f"there is no terminal to ask for the password of {user}: use --password-file or {PASSWORD_VARIABLE}"
        ) from None
    if not answer:
        raise InvalidArgument("without a password nobody can log in")
    return Secret(answer)
