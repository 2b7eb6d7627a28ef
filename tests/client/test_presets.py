"""presets.py: the data makes sense and has sources, names are found, limits are applied."""

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from smtp_async import (
    ClientOptions,
    Credentials,
    PoolLimits,
    RateLimits,
    Security,
    SMTPClient,
    find_provider,
    oauth,
    providers,
)
from smtp_async.client.presets import (
    OAuthServer,
    Provider,
    provider_of_domain,
    provider_of_exchanger,
    with_limits,
)
from smtp_async.errors import InvalidArgument
from tests.connection.test_dial_route import dialler
from tests.lab import mail, tls_server, trusting
from tests.servers.pki import Pki

LIMITS = [
    "max_connections",
    "messages_per_connection",
    "messages_per_second",
    "messages_per_minute",
    "messages_per_hour",
    "messages_per_day",
    "max_recipients",
    "max_size",
    "idle_time",
]


# --- the data ------------------------------------------------------------------------------------------------


def test_there_are_sixty_providers_and_more() -> None:
    assert len({provider.host for provider in providers()}) >= 60
    assert [provider.name for provider in providers()] == sorted(provider.name for provider in providers())


@pytest.mark.parametrize("provider", providers(), ids=lambda provider: provider.name)
def test_each_makes_sense_and_has_its_sources(provider: Provider) -> None:
    assert provider.sources and all(urlsplit(source).scheme == "https" for source in provider.sources)
    assert provider.security in (Security.IMPLICIT, Security.STARTTLS)
    assert (provider.port == 465) == (provider.security is Security.IMPLICIT)
    for name in LIMITS:
        value = getattr(provider, name)
        assert value is None or value > 0
    for domain in (*provider.domains, *provider.exchangers):
        assert domain == domain.lower() and "." in domain and not domain.endswith(".")
    if provider.oauth is not None:
        assert provider.oauth.token.startswith("https://") and provider.oauth.scopes
    # A client can be made of each.
    client = SMTPClient.for_provider(provider.name, username="ann", password="secret")
    assert (client.host, client.port, client.security) == (provider.host, provider.port, provider.security)


def test_a_limit_has_a_source_of_its_own() -> None:
    """The lists of servers state no limits."""
    lists = ("thunderbird/autoconfig", "nodemailer/nodemailer")
    for provider in providers():
        if any(getattr(provider, name) is not None for name in LIMITS) or provider.oauth is not None:
            own = [one for one in provider.sources if not any(name in one for name in lists)]
            assert own or provider.name == "comcast", (
                provider.name
            )  # whose entry in the list has its OAuth server


def test_no_name_and_no_domain_is_given_twice() -> None:
    names = [name.casefold() for one in providers() for name in (one.name, *one.aliases)]
    domains = [domain for one in providers() for domain in one.domains]
    exchangers = [domain for one in providers() for domain in one.exchangers]
    for given in (names, domains, exchangers):
        assert len(set(given)) == len(given)


def test_tokens_come_from_where_this_library_fetches_them() -> None:
    for name, endpoints in (("gmail", oauth.endpoints.GOOGLE), ("yandex", oauth.endpoints.YANDEX)):
        assert find_provider(name).oauth == OAuthServer(
            token=endpoints.token, authorize=endpoints.authorization, scopes=(endpoints.scope,)
        )
    microsoft = find_provider("office365").oauth
    assert microsoft is not None
    assert microsoft.token == oauth.endpoints.microsoft().token


# --- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gmail", "GMail", " google mail ", "Googlemail"])
def test_a_provider_is_found_by_its_names_in_any_case(name: str) -> None:
    assert find_provider(name).host == "smtp.gmail.com"


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("gmial", "gmail"),
        ("sendgird", "sendgrid"),
        ("office356", "office365"),
        ("ses-eu-west-9", "ses-eu-west-1"),
    ],
)
def test_a_wrong_name_suggests_near_ones(name: str, suggested: str) -> None:
    with pytest.raises(InvalidArgument, match=f"no provider is called '{name}'; did you mean .*{suggested}"):
        find_provider(name)


def test_a_name_like_no_other_suggests_nothing() -> None:
    with pytest.raises(InvalidArgument, match=r"^no provider is called 'xyzzy-plugh'$"):
        find_provider("xyzzy-plugh")


@pytest.mark.parametrize(
    ("domain", "name"), [("gmail.com", "gmail"), ("Hotmail.COM.", "outlook"), ("example.org", None)]
)
def test_a_provider_is_found_by_the_domain_of_an_address(domain: str, name: str | None) -> None:
    provider = provider_of_domain(domain)
    assert (provider and provider.name) == name


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("aspmx.l.google.com", "google-workspace"),
        ("ALT2.ASPMX.L.GOOGLE.COM.", "google-workspace"),
        ("example-org.mail.protection.outlook.com", "office365"),
        ("mx.yandex.net", "yandex"),
        ("notmx.yandex.net", None),
        ("mail.protection.outlook.com.example.org", None),
        ("", None),
    ],
)
def test_a_provider_is_found_by_its_mail_exchangers(host: str, name: str | None) -> None:
    provider = provider_of_exchanger(host)
    assert (provider and provider.name) == name


# --- clients -------------------------------------------------------------------------------------------------


def test_the_limits_of_the_provider_are_those_of_the_client() -> None:
    client = SMTPClient.for_provider("office365", username="ann@example.com", password="secret")
    assert (client.host, client.port, client.security) == ("smtp.office365.com", 587, Security.STARTTLS)
    assert client.options.pool.max_connections == 3
    assert client.options.rates == RateLimits(messages_per_minute=30)


async def user_seen(
    pki: Pki, make: Callable[[ClientOptions], SMTPClient], users: dict[str, str]
) -> str | None:
    """Send a message to a local server, to which the dialer leads, and return the user that was logged in there."""
    async with tls_server(pki, users=users, require_auth=True) as server:
        # The certificate is not for the host of the provider.
        tls = replace(trusting(pki), server_hostname="localhost")
        async with make(ClientOptions(tls=tls, dialer=dialler(server.port))) as client:
            await client.send(mail())
        return server.connections[0].user


@pytest.mark.usefixtures("no_leaks")
async def test_a_user_name_that_all_accounts_share_may_be_left_out(pki: Pki) -> None:
    def make(options: ClientOptions) -> SMTPClient:
        return SMTPClient.for_provider("sendgrid", password="key", options=options)

    assert await user_seen(pki, make, {"apikey": "key"}) == "apikey"


def test_more_connections_than_the_limit_of_the_client_are_not_opened() -> None:
    assert find_provider("sendgrid").max_connections == 10_000
    assert SMTPClient.for_provider("sendgrid", password="key").options.pool == PoolLimits()


@pytest.mark.usefixtures("no_leaks")
async def test_credentials_may_be_given_as_such(pki: Pki) -> None:
    def make(options: ClientOptions) -> SMTPClient:
        ann = Credentials(username="ann", password="secret")
        return SMTPClient.for_provider("gmail", credentials=ann, options=options)

    assert await user_seen(pki, make, {"ann": "secret"}) == "ann"


def test_a_password_needs_a_user_name_where_accounts_have_their_own() -> None:
    with pytest.raises(InvalidArgument):
        SMTPClient.for_provider("gmail", password="secret")


def test_what_the_caller_sets_counts_where_it_is_stricter_or_a_rate() -> None:
    provider = Provider(
        name="x",
        title="X",
        host="x.example",
        port=465,
        security=Security.IMPLICIT,
        sources=(),
        max_connections=4,
        messages_per_connection=50,
        idle_time=5,
        messages_per_second=2,
        messages_per_day=100,
    )
    options = ClientOptions(
        pool=PoolLimits(max_connections=2, max_messages=None),
        rates=RateLimits(messages_per_day=500, send_rate=9),
    )
    limited = with_limits(options, provider)
    assert limited.pool == PoolLimits(max_connections=2, max_messages=50, idle_time=5)
    assert limited.rates == RateLimits(messages_per_second=2, messages_per_day=500, send_rate=9)


def test_a_password_is_in_no_traceback() -> None:
    with pytest.raises(InvalidArgument) as caught:
        SMTPClient.for_provider("gmial", username="ann", password="hunter2-secret")
    frames = caught.traceback
    assert not any(
        "hunter2-secret" in repr(frame.frame.f_locals) for frame in frames if "presets" in str(frame.path)
    )
