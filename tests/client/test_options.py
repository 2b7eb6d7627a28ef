"""URLs of mail servers: any text is a server or a clear refusal, and no refusal tells the password."""

import ssl
import traceback
import warnings
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtp_async import (
    AddressFamily,
    ClientOptions,
    Credentials,
    Security,
    SMTPClient,
    SocketOptions,
    TLSOptions,
    Token,
    TrustOptions,
    legacy_context,
)
from smtp_async.client.options import credentials_of, parse_url
from smtp_async.errors import InvalidArgument, InvalidHost
from smtp_async.model.secret import Secret
from smtp_async.testing import ScriptedServer
from smtp_async.tls.context import default_port
from smtp_async.transport.names import host_name
from tests.auth import servers
from tests.lab import mail, tls_server, trusting
from tests.servers.pki import Pki

SCHEMES = {
    "smtps": Security.IMPLICIT,
    "smtp": Security.STARTTLS,
    "smtp+plain": Security.PLAINTEXT,
    "lmtp": Security.AUTO,
}
PASSWORD = "c4n4ry-p4ssw0rd"

hosts = st.from_regex(r"[a-z0-9]{1,10}(\.[a-z0-9]{1,10}){0,3}", fullmatch=True) | st.ip_addresses().map(str)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
#: What URLs are made of, in any order, so that most of them are nearly right.
pieces = st.sampled_from(
    ["smtp", "smtps", "smtp+plain", "lmtp+unix", "://", ":", "/", "//", "@", "[", "]", "?", "#", "%", "%00", "%0d%0a",
     "::1", "mx.test", "ann", PASSWORD, "587", "0", "99999", " ", "\n", "\0", "ü", "-1", "１２", "\ud800"]
)  # fmt: skip


def demand_a_host_name_or_a_refusal(host: str) -> None:
    """What a name server or a TLS handshake is given is printable ASCII without blanks."""
    try:
        name = host_name(host)
    except InvalidHost:
        return
    assert name.isascii() and name.isprintable() and " " not in name


@given(st.text() | st.lists(pieces, max_size=12).map("".join) | st.text().map("smtp://ann:x@".__add__))
@example("smtp://ann:x@[::1")
@example("smtp://mx.test\u2100")
@example(f"smtps://ann:{PASSWORD}@:25")
@example(f"smtp://ann:{PASSWORD}@mx.test\r\nRSET:25")
def test_any_text_is_a_server_or_a_clear_refusal(url: str) -> None:
    try:
        client = SMTPClient.from_url(url)
    except InvalidArgument as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        # The frames of this test do hold the URL.
        assert (
            PASSWORD not in str(error) and PASSWORD not in shown.partition("smtp_async/client/client.py")[2]
        )
        return
    assert client.host and (0 < client.port < 65536 or client.host.startswith("/"))
    # It may stand where the host does, and is one then.
    assert PASSWORD in client.host or PASSWORD not in repr(client)
    assert client.security is not Security.AUTO
    if not client.host.startswith("/"):
        demand_a_host_name_or_a_refusal(client.host)


@given(
    st.sampled_from(list(SCHEMES)),
    hosts,
    st.none() | st.integers(1, 65535),
    st.none() | st.tuples(texts, texts),
)
def test_what_is_written_by_the_rules_is_read_back(
    scheme: str, host: str, port: int | None, login: tuple[str, str] | None
) -> None:
    user = ":".join(quote(part, safe="") for part in login) + "@" if login else ""
    place = f"[{host}]" if ":" in host else host
    url = f"{scheme}://{user}{place}{f':{port}' if port else ''}"
    client = SMTPClient.from_url(url)
    assert client.host == host
    assert client.port == (port or default_port(SCHEMES[scheme], lmtp=scheme == "lmtp"))
    assert SCHEMES[scheme] in (client.security, Security.AUTO)
    read = parse_url(Secret(url), ClientOptions())
    assert (read["username"], read["password"] and read["password"].reveal()) == (login or (None, None))


@given(texts.map(lambda name: f"/run/{name}"))
def test_a_unix_socket_is_read_back(path: str) -> None:
    client = SMTPClient.from_url(f"lmtp+unix://{quote(path)}")
    assert (client.host, client.port, client.options.lmtp) == (path, 0, True)


@pytest.mark.parametrize("url", ["lmtp://mx.test", "lmtp+unix:///run/lmtp"])
def test_the_scheme_decides_about_lmtp(url: str) -> None:
    assert SMTPClient.from_url(url).options.lmtp
    assert not SMTPClient.from_url("smtp://mx.test", options=ClientOptions(lmtp=True)).options.lmtp


# --- accounts ------------------------------------------------------------------------------------------------


async def fetch() -> Token:
    return Token("c4n4ry")


ACCOUNT = Credentials(username="ann", password="x")


@pytest.mark.parametrize("token", ["c4n4ry", "Bearer c4n4ry", Secret("c4n4ry"), fetch])
def test_a_token_is_given_as_a_password_is(token: Any) -> None:
    client = SMTPClient("mx.test", username="ann", token=token)
    # As with every account, TLS is required.
    assert client.security is Security.STARTTLS
    assert credentials_of("ann", None, token, None) == Credentials(username="ann", token=token)
    assert SMTPClient.for_provider("gmail", username="ann@gmail.com", token=token).host == "smtp.gmail.com"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"username": "ann"}, "belongs together"),
        ({"password": "c4n4ry"}, "belongs together"),
        ({"token": "c4n4ry"}, "belongs together"),
        ({"username": "ann", "password": "c4n4ry", "token": "c4n4ry"}, "either password or token"),
        ({"username": "ann", "token": "c4n4ry", "credentials": ACCOUNT}, "either credentials"),
        ({"username": "ann", "password": "c4n4ry", "credentials": ACCOUNT}, "either credentials"),
        ({"username": "ann", "token": Token("c4n4ry")}, "not Token"),
        ({"username": "ann", "password": b"c4n4ry"}, "not bytes"),
    ],
)
def test_an_account_in_part_or_twice(wrong: Any, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said) as caught:
        SMTPClient("mx.test", **wrong)
    assert "c4n4ry" not in str(caught.value)
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)][1:]
    # `repr` of a client that is not made works, too.
    assert frames and "c4n4ry" not in "".join(repr(frame.f_locals) for frame in frames)


async def test_a_login_with_a_token(pki: Pki) -> None:
    async with tls_server(pki, mechanisms={"XOAUTH2": servers.xoauth2()}, users={"ann": "c4n4ry"}) as server:
        options = ClientOptions(tls=trusting(pki))
        client = SMTPClient("localhost", server.port, username="ann", token=fetch, options=options)
        async with client:
            await client.send(mail())
        assert server.messages[0].user == "ann"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"tls": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)},
            r"tls is a TLSOptions, not SSLContext: .*context=",
        ),
        ({"pool": 5}, "pool is a PoolLimits, not int"),
        ({"timeouts": 30}, r"timeouts is a Timeouts, not int: .*Timeouts\.all"),
        ({"rates": 100}, "rates is a RateLimits, not int"),
        ({"socket": 1}, "socket is a SocketOptions, not int"),
        ({"dns": "192.0.2.1"}, "dns is a DNSOptions, not str"),
        ({"send": None}, "send is a SendOptions, not NoneType"),
        ({"proxy": f"socks5://ann:{PASSWORD}@x"}, r"proxy is a ProxyOptions, not str: .*url="),
        ({"proxy": [1]}, "proxy is a ProxyOptions, not int"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_group_of_another_type_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said) as caught:
        ClientOptions(**wrong)
    assert PASSWORD not in str(caught.value)


def test_options_of_another_type_are_refused() -> None:
    wrong: Any = {"pool": 1}
    with pytest.raises(InvalidArgument, match="options is a ClientOptions, not dict"):
        SMTPClient("mx.test", options=wrong)


# --- flags of other components -------------------------------------------------------------------------------

#: What stands in the place of a flag, and the first command, the version of TLS and whether the server is verified.
FLAGS: dict[str, tuple[Security, dict[str, Any], tuple[str, str | None, bool | None]]] = {
    "no options": (Security.AUTO, {}, ("EHLO", None, None)),
    "smtpOptionNone": (Security.PLAINTEXT, {"extensions": False}, ("HELO", None, None)),
    "smtpOptionExtended": (Security.PLAINTEXT, {"extensions": True}, ("EHLO", None, None)),
    "smtpOptionTunnel": (Security.PLAINTEXT, {"tunnel": True}, ("EHLO", None, None)),
    "smtpOptionSecureExplicit": (Security.STARTTLS, {}, ("EHLO", "TLSv1.3", True)),
    "smtpOptionSecureImplicit": (Security.IMPLICIT, {}, ("EHLO", "TLSv1.3", True)),
    "smtpOptionTrustedSite": (
        Security.IMPLICIT,
        {"tls": TLSOptions(trust=TrustOptions(validate=False))},
        ("EHLO", "TLSv1.3", False),
    ),
    "smtpOptionSecureFallback": (
        Security.IMPLICIT,
        {},
        ("EHLO", "TLSv1", True),
    ),
    "smtpOptionPreferIPv6": (
        Security.PLAINTEXT,
        {"socket": SocketOptions(family=AddressFamily.PREFER_IPV6)},
        ("EHLO", None, None),
    ),
}


def server_for(flag: str, security: Security, pki: Pki) -> ScriptedServer:
    if security in (Security.AUTO, Security.PLAINTEXT):
        return ScriptedServer()
    context = pki.server_context()
    if flag == "smtpOptionSecureFallback":
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    return ScriptedServer(ssl_context=context, implicit_tls=security is Security.IMPLICIT)


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_each_flag_has_its_effect_on_every_connection(flag: str, pki: Pki) -> None:
    """The options of a client hold for each of its sessions, which are opened without any."""
    security, given, expected = FLAGS[flag]
    tls = trusting(pki)
    if flag == "smtpOptionSecureFallback":
        tls = TLSOptions(context=legacy_context(tls.trust))
    options = ClientOptions(**{"tls": tls, **given})
    async with server_for(flag, security, pki) as server:
        client = SMTPClient("localhost", server.port, security=security, options=options)
        async with client:
            for _ in range(2):
                async with client.session() as session:
                    await session.connect()
                    info = session.info
                assert (info.tls_version, info.verified) == expected[1:]
        hellos = [verb for verb in server.verbs() if verb in ("EHLO", "HELO")]
        assert set(hellos) == {expected[0]}
        assert len(server.connections) == 2
