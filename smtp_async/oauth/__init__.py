"""Providers of OAuth 2.0 access tokens for `Credentials(token=…)`; the extra `[oauth]`.

`RefreshToken` acts for an account that has consented (`smtp-async token` asks for the consent), `ClientCredentials` and
`ServiceAccount` for an organisation's application, and `from_google` and `from_msal` use what an application has of
those libraries already.
"""

from .endpoints import GOOGLE, YAHOO, YANDEX, Endpoints, MicrosoftCloud, microsoft
from .existing import from_google, from_msal
from .providers import ClientCredentials, RefreshToken, ServiceAccount

__all__ = [
    "GOOGLE",
    "YAHOO",
    "YANDEX",
    "ClientCredentials",
    "Endpoints",
    "MicrosoftCloud",
    "RefreshToken",
    "ServiceAccount",
    "from_google",
    "from_msal",
    "microsoft",
]
