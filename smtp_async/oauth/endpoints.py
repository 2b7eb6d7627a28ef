"""Where authorization servers are, and the scopes that permit sending mail: data, each with its source.

The addresses are those that the providers document. Nothing is discovered at run time, because a document that is
fetched would be one more thing to trust.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

from ..errors import InvalidAddress, InvalidArgument
from ..model.domain import domain_forms

__all__ = ["GOOGLE", "YAHOO", "YANDEX", "Endpoints", "MicrosoftCloud", "checked_url", "microsoft"]

#: Hosts to which no network leads.
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
#: A tenant is a GUID, a domain, or one of Microsoft's words for several tenants.
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
#: Tenants that are no single tenant, so that no application can have permissions there.
_SHARED_TENANTS: Final = frozenset({"common", "organizations", "consumers"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """The addresses of one authorization server, and what to ask it for.

    Attributes:
        name: what the provider is called in errors and files.
        token: the token endpoint (RFC 6749 section 3.2).
        authorization: the authorization endpoint, which a browser opens (RFC 6749 section 3.1); empty: there is none.
        device: the device authorization endpoint (RFC 8628 section 3.1); empty: there is none that permits mail.
        scope: the scopes with which an account's own consent permits sending mail, separated by spaces.
        application_scope: the scope with which an application sends without an account's consent; empty: none is known.
        redirect_host: the host of the loopback redirect that the provider takes with any port.
        consent_parameters: what the authorization endpoint needs besides, to return a refresh token.
        submission: host and port for mail; empty: not known.
    """

    name: str
    token: str
    authorization: str = ""
    device: str = ""
    scope: str = ""
    application_scope: str = ""
    redirect_host: str = "127.0.0.1"
    consent_parameters: tuple[tuple[str, str], ...] = ()
    submission: str = ""


#: https://developers.google.com/identity/protocols/oauth2/native-app (addresses, loopback redirect, `access_type`);
#: https://developers.google.com/workspace/gmail/imap/xoauth2-protocol (scope).
#: Its device endpoint issues no scope for mail:
#: https://developers.google.com/identity/protocols/oauth2/limited-input-device (allowed scopes).
GOOGLE: Final = Endpoints(
    name="google",
    token="https://oauth2.googleapis.com/token",
    authorization="https://accounts.google.com/o/oauth2/v2/auth",
    scope="https://mail.google.com/",
    application_scope="https://mail.google.com/",
    consent_parameters=(("access_type", "offline"), ("prompt", "consent")),
    submission="smtp.gmail.com:587",
)

#: https://developer.yahoo.com/oauth2/guide/flows_authcode/ (addresses); https://senders.yahooinc.com/developer/
#: documentation (the mail scope, only for applications that Yahoo has approved; SMTP by OAUTHBEARER and XOAUTH2).
#: Yahoo registers https redirect addresses only, so that a loopback port cannot be used.
YAHOO: Final = Endpoints(
    name="yahoo",
    token="https://api.login.yahoo.com/oauth2/get_token",
    scope="mail-w",
    submission="smtp.mail.yahoo.com:465",
)

#: https://yandex.com/dev/id/doc/dg/oauth/reference/console-client.html (addresses);
#: https://tech.yandex.com/oauth/doc/imap/index-docpage/ (SMTP server, XOAUTH2, the permission to send over SMTP).
#: The redirect address has to be registered with its port. The grant type of its device codes is not that of RFC 8628
#: (https://yandex.ru/dev/id/doc/en/codes/screen-code-oauth).
YANDEX: Final = Endpoints(
    name="yandex",
    token="https://oauth.yandex.com/token",
    authorization="https://oauth.yandex.com/authorize",
    scope="mail:smtp",
    redirect_host="localhost",
    submission="smtp.yandex.com:465",
)


class MicrosoftCloud(Enum):
    """Microsoft's clouds: sign-in host, the resources whose scopes permit mail, submission server.

    The first resource is that of accounts, the second that of applications.

    Sign-in hosts: https://learn.microsoft.com/en-us/entra/identity-platform/authentication-national-cloud
    Scopes: https://learn.microsoft.com/en-us/exchange/client-developer/legacy-protocols/
    how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth, for the global cloud; those of the other clouds
    have the host of their Exchange Online instead, where applications have been seen to ask for them.
    Exchange Online: https://learn.microsoft.com/en-us/microsoft-365/enterprise/urls-and-ip-address-ranges, and the
    pages for U.S. government GCC High, DoD, and 21Vianet
    """

    GLOBAL = (
        "login.microsoftonline.com",
        "https://outlook.office.com",
        "https://outlook.office365.com",
        "smtp.office365.com:587",
    )
    US_GOVERNMENT = (
        "login.microsoftonline.us",
        "https://outlook.office365.us",
        "https://outlook.office365.us",
        "smtp.office365.us:587",
    )
    US_DEFENSE = (
        "login.microsoftonline.us",
        "https://outlook.office365.us",
        "https://outlook-dod.office365.us",
        "outlook-dod.office365.us:587",
    )
    CHINA = (
        "login.partner.microsoftonline.cn",
        "https://partner.outlook.cn",
        "https://partner.outlook.cn",
        "smtp.partner.outlook.cn:587",
    )


def microsoft(tenant: str = "common", cloud: MicrosoftCloud = MicrosoftCloud.GLOBAL) -> Endpoints:
    """Return the endpoints of Microsoft 365 and Outlook.com.

    Args:
        tenant: the organisation's tenant, as its id or as a domain; "common" for accounts of any organisation and
            personal ones, "organizations" or "consumers" for one kind of them. An application that sends without an
            account's consent needs the organisation's own tenant.
        cloud: the national cloud in which the organisation is.

    Raises:
        InvalidArgument: this cannot be a tenant.
    """
    if not _TENANT.fullmatch(tenant):
        raise InvalidArgument("a tenant is the id of an organisation or its domain")
    host, resource, of_applications, submission = cloud.value
    address = f"https://{host}/{tenant}/oauth2/v2.0"
    return Endpoints(
        name="microsoft",
        token=f"{address}/token",
        authorization=f"{address}/authorize",
        device=f"{address}/devicecode",
        scope=f"{resource}/SMTP.Send offline_access",
        application_scope="" if tenant.lower() in _SHARED_TENANTS else f"{of_applications}/.default",
        # Entra ID ignores the port of http://localhost, and of no other address.
        redirect_host="localhost",
        submission=submission,
    )


def checked_url(url: str, what: str, *, allow_http_loopback: bool = False) -> str:
    """Return `url` if secrets may be sent there.

    Args:
        url: an endpoint.
        what: its name for the error.
        allow_http_loopback: accept http to this machine, for tests.

    Raises:
        InvalidArgument: it is not https, or not an address that can be used.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    # urlsplit drops tabs and line ends silently.
    if not host or any(ord(one) <= 0x20 or ord(one) >= 0x7F for one in url) or parts.username is not None:
        raise InvalidArgument(f"the {what} is not a URL with a host")
    if not _is_host(host):
        raise InvalidArgument(f"the {what} has a host that is neither a host name nor an address")
    if parts.fragment:
        raise InvalidArgument(f"the {what} has a fragment, which RFC 6749 section 3 forbids")
    if parts.scheme == "https" or (parts.scheme == "http" and allow_http_loopback and host in _LOOPBACK):
        return url
    raise InvalidArgument(f"the {what} has to begin with https://, because secrets are sent there")


def _is_host(host: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return True
    try:
        # Reads the A-labels, too.
        domain_forms(host.removesuffix("."), lenient=True)
    except InvalidAddress:
        return False
    return True
