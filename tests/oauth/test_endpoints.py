"""endpoints.py: addresses that secrets may be sent to."""

import inspect
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidArgument
from smtp_async.oauth import GOOGLE, YAHOO, YANDEX, Endpoints, MicrosoftCloud, microsoft
from smtp_async.oauth import endpoints as module
from smtp_async.oauth.endpoints import checked_url

ALL = [GOOGLE, YAHOO, YANDEX, *(microsoft("contoso.test", cloud) for cloud in MicrosoftCloud)]


@pytest.mark.parametrize("one", ALL, ids=lambda one: f"{one.name}-{one.submission}")
def test_all_of_them_are_https(one: Endpoints) -> None:
    for url in filter(None, (one.token, one.authorization, one.device)):
        assert checked_url(url, "endpoint") == url
    assert one.scope and one.submission.rpartition(":")[2] in ("587", "465")


def test_each_has_its_source() -> None:
    source = inspect.getsource(module)
    for name in ("GOOGLE", "YAHOO", "YANDEX"):
        comment = source[: source.index(f"{name}: Final")].rpartition("\n\n")[2]
        assert "https://" in comment
    assert "https://learn.microsoft.com" in (MicrosoftCloud.__doc__ or "")


def test_microsofts_clouds() -> None:
    assert microsoft("contoso.test") == Endpoints(
        name="microsoft",
        token="https://login.microsoftonline.com/contoso.test/oauth2/v2.0/token",
        authorization="https://login.microsoftonline.com/contoso.test/oauth2/v2.0/authorize",
        device="https://login.microsoftonline.com/contoso.test/oauth2/v2.0/devicecode",
        scope="https://outlook.office.com/SMTP.Send offline_access",
        application_scope="https://outlook.office365.com/.default",
        redirect_host="localhost",
        submission="smtp.office365.com:587",
    )
    china = microsoft("contoso.test", MicrosoftCloud.CHINA)
    assert china.token.startswith("https://login.partner.microsoftonline.cn/contoso.test/")
    assert china.application_scope == "https://partner.outlook.cn/.default"


@pytest.mark.parametrize("tenant", ["common", "organizations", "Consumers"])
def test_tenants_without_applications(tenant: str) -> None:
    assert microsoft(tenant).application_scope == ""


@pytest.mark.parametrize("tenant", ["", "a/b", "..", "a b", "a?b", "a#b", "ä", "a\n"])
def test_a_tenant_stays_in_its_place(tenant: str) -> None:
    with pytest.raises(InvalidArgument, match="tenant"):
        microsoft(tenant)


@pytest.mark.parametrize(
    "url",
    [
        "https://user@auth.test/",
        "https://user:pass@auth.test/",
        "https://auth.test/#here",
        "https://auth.test:port/",
        "https://[::1/",
        "https://auth.test/\n",
        "https://auth.test/ä",
        "https:///token",
        "http://auth.test/",
        "https://xn--a.example/",
        "https://a..b/",
        "https://-a.test/",
        "https://a%62.test/",
        f"https://{'a' * 64}.test/",
        "",
    ],
)
def test_what_is_no_endpoint(url: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checked_url(url, "token endpoint")
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "auth_1.test", "xn--mller-kva.example", "auth.test.", "localhost"]
)
def test_what_is_a_host(host: str) -> None:
    assert checked_url(f"https://{host}:8443/token", "token endpoint")


@given(st.text() | st.text("a-.xn0123456789[]:%").map(lambda text: f"https://{text}/"))
def test_any_text(text: str) -> None:
    with suppress(InvalidArgument):
        assert checked_url(text, "endpoint").lower().startswith("https:")
