"""Which proxy a connection goes through, and how the client logs in there."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NoReturn, Self
from urllib.parse import unquote, urlsplit

from ...errors import InvalidArgument, InvalidHost, InvalidPort, MissingHost
from ...model.secret import Secret
from .bypass import read_patterns
from .environment import proxy_settings

__all__ = ["ProxyAuth", "ProxyOptions", "ProxyType"]


class ProxyType(Enum):
    """How the proxy is spoken to; the values are the numbers of the replaced components where these had one."""

    #: No proxy: the connection is direct, and the other options are not used.
    NONE = 0
    #: HTTP with the method CONNECT (RFC 9110 section 9.3.6), usually on port 80, 3128 or 8080.
    HTTP_CONNECT = 1
    #: SOCKS4: IPv4 addresses only, no password.
    SOCKS4 = 2
    #: SOCKS5 (RFC 1928), with user name and password (RFC 1929) where the proxy asks for them.
    SOCKS5 = 3
    #: CONNECT over TLS with the proxy; TLS with the mail server goes through it.
    HTTPS_CONNECT = 4
    #: SOCKS4 with names that the proxy resolves.
    SOCKS4A = 10


class ProxyAuth(Enum):
    """How the client logs in to an HTTP proxy."""

    #: Not at all.
    NONE = 0
    #: User name and password as they are (RFC 7617): without TLS with the proxy, the network path can read them.
    BASIC = 1
    #: A digest of the password and of a challenge (RFC 7616).
    DIGEST = 2
    #: NTLM version 2; needs the extra `smtp-async[sasl]`.
    NTLM = 3
    #: What the proxy's 407 offers: Digest before NTLM before Basic.
    AUTO = 4


_SOCKS: Final = frozenset({ProxyType.SOCKS4, ProxyType.SOCKS4A, ProxyType.SOCKS5})
_SCHEMES: Final = {
    "socks4": ProxyType.SOCKS4,
    "socks4a": ProxyType.SOCKS4A,
    "socks5": ProxyType.SOCKS5,
    "socks5h": ProxyType.SOCKS5,
    "http": ProxyType.HTTP_CONNECT,
    "https": ProxyType.HTTPS_CONNECT,
}
_NAMES: Final = {
    ProxyType.NONE: "no proxy",
    ProxyType.HTTP_CONNECT: "HTTP proxy",
    ProxyType.HTTPS_CONNECT: "HTTPS proxy",
    ProxyType.SOCKS4: "SOCKS4 proxy",
    ProxyType.SOCKS4A: "SOCKS4a proxy",
    ProxyType.SOCKS5: "SOCKS5 proxy",
}
_PORTS: Final = {ProxyType.NONE: 0, ProxyType.HTTP_CONNECT: 80, ProxyType.HTTPS_CONNECT: 443}
_SOCKS_PORT: Final = 1080
#: RFC 1929 section 2: the length of a user name or password is one octet.
_SOCKS_LONGEST: Final = 255

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_HOST: Final = re.compile(r"[^\x00-\x20\x7f/@?#\\]+")
#: RFC 9110 sections 5.1 and 5.5.
_FIELD_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
#: Fields that frame the request; one that the caller gave could smuggle a second request.
_FRAMING: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade"})


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class ProxyOptions:
    """A proxy on the way to the server.

    Attributes:
        type: how the proxy is spoken to; NONE uses no proxy.
        host, port: the proxy. The default port is 80 for HTTP_CONNECT, 443 for HTTPS_CONNECT, 1080 for SOCKS.
        username, password: to log in with at the proxy; they go to the proxy only. For SOCKS4 the user name is the
            user ID, and there is no password. The password is kept as a `Secret`.
        auth: how the client logs in to an HTTP proxy.
        headers: fields added to the CONNECT request. They are not shown, because they may hold a token.
        remote_dns: True has the proxy resolve the server's name, False resolves it here; None: the proxy does it
            for SOCKS4a, SOCKS5 and CONNECT, this side for SOCKS4.
        exceptions: servers that are connected to without this proxy: names (`mail.example.com`), names with wildcards
            (`*.example.com`), a domain with all below it (`.example.com`), addresses, networks (`10.0.0.0/8`), or `*`
            for all. A name is compared with addresses only where it is resolved here.
        use_ipv6: may the proxy itself be connected to over IPv6?
        enabled: False keeps the options without using the proxy.
        context: the TLS settings for an HTTPS proxy; None verifies its certificate against the system's authorities.
            `TLSOptions` are for the mail server.
    """

    type: ProxyType = ProxyType.NONE
    host: str = ""
    port: int = 0
    username: str = ""
    password: Secret = Secret("")
    auth: ProxyAuth = ProxyAuth.AUTO
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    remote_dns: bool | None = None
    exceptions: tuple[str, ...] = ()
    use_ipv6: bool = True
    enabled: bool = True
    context: ssl.SSLContext | None = None

    def __init__(
        self,
        *,
        url: str | Secret | None = None,
        type: ProxyType | None = None,
        host: str = "",
        port: int | None = None,
        username: str = "",
        password: str | Secret = "",
        auth: ProxyAuth = ProxyAuth.AUTO,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | str = (),
        remote_dns: bool | None = None,
        exceptions: Iterable[str] | str = (),
        use_ipv6: bool = True,
        enabled: bool = True,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Make the options, from a URL or from the parts.

        Args:
            url: `socks5://user:password@host:port`; the schemes are socks4, socks4a, socks5, socks5h (the same), http
                and https. User name and password are percent-encoded.
            type, host, port, username, password: in place of a URL.
            headers: pairs, or lines with CRLF between them.
            exceptions: patterns, or one text with `;` or `,` between them.
            auth, remote_dns, use_ipv6, enabled, context: see the attributes.

        Raises:
            InvalidArgument, InvalidHost, InvalidPort, MissingHost: an option makes no sense.
        """
        # The first statements, so that no stack frame of the library holds the texts.
        url = None if url is None else Secret(url)
        password = Secret(password)
        hidden = _Hidden(headers)
        del headers
        for name in self.__slots__:
            # What fails below shows this object in a traceback, and `repr` wants every attribute.
            object.__setattr__(self, name, None)
        if url is not None:
            if type is not None or host or port is not None or username or password:
                raise InvalidArgument(
                    "a proxy is given by its URL, or by type, host, port, username, password"
                )
            type, host, port, username, password = _parsed(url)
        type = _type_of(type, host)
        place = (type, _host_of(type, host), _port_of(type, port), username, password)
        rest = (auth, hidden.fields(), remote_dns, read_patterns(exceptions), use_ipv6, enabled, context)
        for name, value in zip(self.__slots__, (*place, *rest), strict=True):
            object.__setattr__(self, name, value)
        _demand_sendable(self)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self | None:
        """Return the proxy that the environment names, None if it names none.

        Nothing in this library looks there unasked. `SMTP_PROXY` comes before `ALL_PROXY`, and both may be in lower
        case. As in other programs, `socks5://` and `socks4://` resolve the server's name here, `socks5h://` and
        `socks4a://` at the proxy; a URL without a scheme is an HTTP proxy. `NO_PROXY` lists exceptions: each name
        stands for the domain with all below it.

        Args:
            environ: the variables; None takes those of this process.

        Raises:
            InvalidArgument: a variable holds no URL of a proxy. The message names the variable, not its value.
        """
        variable, url, settings = proxy_settings(os.environ if environ is None else environ)
        if url is None:
            return None
        try:
            return cls(url=url, **settings)
        except InvalidArgument as error:
            raise InvalidArgument(f"{variable} in the environment: {error.message}") from None

    @property
    def used(self) -> bool:
        """Whether these options lead through a proxy."""
        return self.enabled and self.type is not ProxyType.NONE

    @property
    def is_socks(self) -> bool:
        """Whether the proxy speaks SOCKS."""
        return self.type in _SOCKS

    @property
    def resolves_names(self) -> bool:
        """Whether the proxy resolves the server's name."""
        return self.type is not ProxyType.SOCKS4 if self.remote_dns is None else self.remote_dns

    def __str__(self) -> str:
        place = f"[{self.host}]" if ":" in self.host else self.host
        return _NAMES[self.type] + (f" {place}:{self.port}" if self.host else "")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "ProxyOptions cannot be pickled, because they may hold a password: "
            "pass on what they are made from, and make them where they are used"
        )


# --- parts ---------------------------------------------------------------------------------------------------


def _type_of(type: ProxyType | None, host: str) -> ProxyType:
    if type is None:
        if host:
            raise InvalidArgument("the proxy has a host and no type: type=ProxyType.SOCKS5, for example")
        return ProxyType.NONE
    return type


def _host_of(type: ProxyType, host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if type is not ProxyType.NONE and not host:
        raise MissingHost("the proxy has a type and no host")
    if host and not _HOST.fullmatch(host):
        raise InvalidHost(f"{host!r} is not the name of a proxy")
    return host


def _port_of(type: ProxyType, port: int | None) -> int:
    if port is None or type is ProxyType.NONE:
        return _PORTS.get(type, _SOCKS_PORT)
    if not 0 < port < 65536:
        raise InvalidPort(f"the port of a proxy is between 1 and 65535, not {port}")
    return port


_Parts = tuple[ProxyType, str, int | None, str, Secret]


def _parsed(url: Secret) -> _Parts:
    parts = _read_url(url)
    if isinstance(parts, str):
        raise InvalidArgument(f"not a URL of a proxy: {parts}")
    return parts


def _read_url(url: Secret) -> _Parts | str:
    """Return the fault as a text instead of raising it, because the frame holds the password."""
    # Not the text of an error, which may repeat the URL.
    try:
        parts = urlsplit(url.reveal())
    except ValueError:
        return "its host is not a name or an address; an IPv6 address stands in brackets"
    try:
        port = parts.port
    except ValueError:
        return "its port is not a number up to 65535; / ? # @ : in a user or password are written %2F %3F %23 %40 %3A"
    kind = _SCHEMES.get(parts.scheme)
    if kind is None:
        return f"the schemes are {', '.join(_SCHEMES)}"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "it has no path"
    if not parts.hostname:
        return "it has no host"
    username = unquote(parts.username or "")
    return kind, parts.hostname, port, username, Secret(unquote(parts.password or ""))


class _Hidden:
    """Header fields as the caller gave them; a class without a `repr`, because tracebacks may show local variables."""

    def __init__(self, headers: Mapping[str, str] | Iterable[tuple[str, str]] | str) -> None:
        self._headers = headers

    def fields(self) -> tuple[tuple[str, str], ...]:
        """Return the fields as pairs.

        Raises:
            InvalidArgument: a name or value would change the request.
        """
        fields = self._read()
        if isinstance(fields, str):
            raise InvalidArgument(fields)
        return fields

    def _read(self) -> tuple[tuple[str, str], ...] | str:
        given = self._headers
        if isinstance(given, str):
            lines = given.removesuffix("\n").removesuffix("\r").split("\n") if given else []
            pairs = [line.removesuffix("\r").partition(":")[::2] for line in lines]
        else:
            pairs = list(given.items() if isinstance(given, Mapping) else given)
        fields = []
        for name, value in pairs:
            value = value.strip(" \t")
            if not _FIELD_NAME.fullmatch(name):
                return "a header for the proxy has no valid name"
            if not _FIELD_VALUE.fullmatch(value):
                return f"the header {name} for the proxy has a character that no header may have"
            if name.lower() in _FRAMING:
                return f"the header {name} of a CONNECT request is the library's"
            fields.append((name, value))
        return tuple(fields)


def _demand_sendable(options: ProxyOptions) -> None:
    """Refuse credentials that the proxy's protocol cannot carry."""
    if options.type is ProxyType.NONE:
        return
    username, has_password = options.username, bool(options.password)
    if _CONTROL.search(username) or _CONTROL.search(options.password.reveal()):
        raise InvalidArgument("user name or password for the proxy hold a control character")
    if options.is_socks:
        if options.auth not in (ProxyAuth.AUTO, ProxyAuth.NONE):
            raise InvalidArgument(f"auth={options.auth.name} is for HTTP proxies: SOCKS has a way of its own")
        if options.headers:
            raise InvalidArgument("headers are for HTTP proxies")
        _demand_socks_login(options, has_password)
        return
    if has_password and not username:
        raise InvalidArgument("a password for the proxy needs a user name")
    if options.auth in (ProxyAuth.BASIC, ProxyAuth.DIGEST, ProxyAuth.NTLM) and not username:
        raise InvalidArgument(f"auth={options.auth.name} needs a user name for the proxy")
    if options.auth is ProxyAuth.BASIC and ":" in username:
        raise InvalidArgument("a user name with a colon cannot be sent by Basic (RFC 7617 section 2)")


def _demand_socks_login(options: ProxyOptions, has_password: bool) -> None:
    username = options.username
    if options.type is not ProxyType.SOCKS5:
        if has_password:
            raise InvalidArgument("SOCKS4 has no password, only a user ID")
    elif bool(username) != has_password:
        raise InvalidArgument("SOCKS5 needs user name and password, or neither")
    if not (username.isascii() and options.password.reveal().isascii()):
        raise InvalidArgument("user name and password for a SOCKS proxy have to be ASCII")
    if max(len(username), len(options.password.reveal())) > _SOCKS_LONGEST:
        raise InvalidArgument(
            f"user name and password for a SOCKS proxy have {_SOCKS_LONGEST} octets at most"
        )
