"""The consent of an account on another device: the device authorization grant (RFC 8628)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from ..errors import InvalidArgument, TokenUnavailable
from ..model.reply import printable
from ..model.secret import Secret
from .answers import Answer, Failure, error_of
from .endpoints import Endpoints
from .token_request import Form, TokenEndpoint

__all__ = ["DeviceCode", "consent_on_device", "read_device_code"]

_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
#: Seconds between two questions where the server names none, and what is added when it asks for more patience
#: (RFC 8628 sections 3.2 and 3.5).
_INTERVAL: Final = 5.0
_LONGEST_INTERVAL: Final = 60.0
#: Seconds for which codes are valid at most, whatever the server says.
_LONGEST_LIFE: Final = 3600.0
#: Characters of what the account is shown.
_LONGEST: Final = 200


class DeviceCode(NamedTuple):
    """What the account has to do, and what is asked with meanwhile.

    Attributes:
        device_code: proves to the server that this program began.
        user_code: what the account types in.
        address: where.
        expires_in: seconds for which the codes are valid.
        interval: seconds between two questions.
    """

    device_code: Secret
    user_code: str
    address: str
    expires_in: float
    interval: float


def read_device_code(found: Mapping[str, Any]) -> DeviceCode | None:
    """Read the answer of a device authorization endpoint (RFC 8628 section 3.2); None: it is none."""
    code, user_code = found.get("device_code"), found.get("user_code")
    # Google's own name for it, from before the RFC.
    address = found.get("verification_uri") or found.get("verification_url")
    texts = (code, user_code, address)
    if not all(isinstance(one, str) and one for one in texts) or not str(address).startswith("https://"):
        return None
    life = _seconds(found.get("expires_in"), _LONGEST_LIFE, most=_LONGEST_LIFE)
    interval = _seconds(found.get("interval"), _INTERVAL, most=_LONGEST_INTERVAL)
    shown = printable(str(user_code), _LONGEST), printable(str(address), _LONGEST)
    return DeviceCode(Secret(str(code)), *shown, life, interval)


async def consent_on_device(
    endpoints: Endpoints,
    *,
    client_id: str,
    client_secret: Secret | str = "",
    show: Callable[[str, str], None],
    scope: str = "",
    patience: float = 900.0,
    ssl_context: ssl.SSLContext | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Answer:
    """Have an account consent on another device, and return the first token with its refresh token.

    Args:
        endpoints: the authorization server.
        client_id: the application's id.
        client_secret: its secret, if it has one.
        show: called with the address and the code to type in there; must not block.
        scope: what to ask for; empty: the scope of the endpoints.
        patience: seconds until the account has to have consented; the codes may expire before.
        ssl_context: the certificates to trust at the endpoints; None: those of the system.
        sleep: waits between two questions.

    Raises:
        TokenRefused: the account refused, the codes expired, or the server refused.
        TokenUnavailable: there was no consent in time, or the server failed.
        InvalidArgument: the server has no device authorization endpoint.
    """
    client_secret = Secret(client_secret)
    if not endpoints.device:
        raise InvalidArgument(f"{endpoints.name} issues no device codes for mail: consent in a browser")
    endpoint = TokenEndpoint(endpoints.token, ssl_context=ssl_context)
    beginning = TokenEndpoint(endpoints.device, what="device authorization endpoint", ssl_context=ssl_context)
    found = await beginning.ask_object(
        {"client_id": client_id, "client_secret": client_secret, "scope": scope or endpoints.scope}
    )
    if isinstance(found, Failure):
        raise error_of(found)
    device = read_device_code(found)
    del found
    if device is None:
        raise TokenUnavailable(f"{beginning.what} sent no device code, user code and https address")
    show(device.address, device.user_code)
    form: Form = {
        "grant_type": _GRANT,
        "device_code": device.device_code,
        "client_id": client_id,
        "client_secret": client_secret,
    }
    limit = min(patience, device.expires_in)
    try:
        async with asyncio.timeout(limit):
            answer = await _poll(endpoint, form, device.interval, sleep)
    except TimeoutError:
        answer = Failure(f"there was no consent within {limit:g} s")
    if isinstance(answer, Failure):
        raise error_of(answer)
    return answer


async def _poll(
    endpoint: TokenEndpoint,
    form: Form,
    interval: float,
    sleep: Callable[[float], Awaitable[None]],
) -> Answer | Failure:
    """Ask until the account has decided (RFC 8628 section 3.5)."""
    while True:
        await sleep(interval)
        answer = await endpoint.ask(form)
        if isinstance(answer, Answer) or answer.permanent:
            return answer
        if answer.error == "slow_down":
            interval += _INTERVAL
        elif answer.error != "authorization_pending":
            # The server failed or was not reached: more slowly from now on.
            interval = min(interval * 2 or _INTERVAL, _LONGEST_INTERVAL)


def _seconds(value: Any, default: float, *, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        return default
    return float(value)
