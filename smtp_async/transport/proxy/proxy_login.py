"""The login at an HTTP proxy: what each CONNECT carries, and what a 407 changes. Sans-I/O.

With `ProxyAuth.AUTO` the first request carries nothing, and the 407 decides: the strongest Digest, then NTLM, then
Basic. One scheme is tried; after a refusal no other one gets the password.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Final, Protocol

from ...errors import FeatureUnavailable, ProxyError, SMTPError
from ...model.proxy_response import ProxyResponse
from ...model.secret import Mask, Secret
from .challenges import Challenge, parse_challenges
from .digest import answer_digest, digest_strength
from .options import ProxyAuth, ProxyOptions

__all__ = ["NTLMExchange", "NTLMFactory", "ProxyLogin"]

#: The extra that brings NTLM.
_EXTRA: Final = "smtp-async[sasl]"
_SCHEMES: Final = {ProxyAuth.BASIC: "basic", ProxyAuth.DIGEST: "digest", ProxyAuth.NTLM: "ntlm"}


class NTLMExchange(Protocol):
    """NTLM, passed in by a package of higher rank: its first message, then the answer to the proxy's challenge."""

    def initial_response(self) -> bytes | None: ...
    def respond(self, challenge: bytes) -> bytes: ...


#: Makes an exchange of user name, password and the proxy's host; it raises `FeatureUnavailable` without the extra.
NTLMFactory = Callable[[str, Secret, str], NTLMExchange]


class ProxyLogin:
    """The login at one proxy, over as many requests as it takes.

    Args:
        options: the proxy, and the account there.
        target: the request's target, host and port.
        ntlm: makes NTLM exchanges; None: there is no NTLM.

    Attributes:
        same_connection: has the next request to go over the connection of the last one?
        mask: takes the credentials out of what the proxy repeats of them.
    """

    __slots__ = (
        "_challenge",
        "_ntlm",
        "_ntlm_factory",
        "_options",
        "_scheme",
        "_target",
        "_tried",
        "mask",
        "same_connection",
    )

    def __init__(self, options: ProxyOptions, target: str, ntlm: NTLMFactory | None = None) -> None:
        self._options = options
        self._target = target
        self._ntlm_factory = ntlm
        self._ntlm: NTLMExchange | None = None
        # An application's own Proxy-Authorization is all that is sent.
        own = any(name.lower() == "proxy-authorization" for name, _ in options.headers)
        may = bool(options.username) and options.auth is not ProxyAuth.NONE and not own
        self._scheme = _SCHEMES.get(options.auth, "") if may else "none"
        self._challenge: Challenge | None = None
        self._tried = 0
        self.mask = Mask()
        self.mask.add_secrets([options.password.reveal().encode()] if options.password else [])
        self.same_connection = False

    def authorization(self) -> Secret | None:
        """Return the value of Proxy-Authorization for the next request, None for a request without it.

        Raises:
            FeatureUnavailable: NTLM needs an extra.
            InvalidArgument: the account does not fit NTLM.
        """
        if self._scheme == "basic":
            self._tried += 1
            return Secret("Basic " + self._basic())
        if self._scheme == "digest" and self._challenge is not None:
            self._tried += 1
            options = self._options
            return Secret(
                answer_digest(self._challenge.parameters, options.username, options.password, self._target)
            )
        if self._scheme == "ntlm":
            return self._ntlm_message()
        return None

    def challenged(self, response: ProxyResponse) -> None:
        """Take a 407, so that another request may follow.

        Raises:
            ProxyError: no other request can help; the message says what to set.
        """
        challenges = parse_challenges(response.values("Proxy-Authenticate"))
        if self._scheme == "none":
            raise _needs_login(challenges)
        if self._scheme == "ntlm" and self.same_connection:
            self._take_ntlm(challenges)
        elif self._scheme == "digest" and self._is_stale(challenges):
            self._challenge = _strongest_digest(challenges)
        elif self._tried:
            raise ProxyError("it refused the user name and password: check both in ProxyOptions")
        else:
            self._choose(challenges)

    # --- the schemes -----------------------------------------------------------------------------------------

    def _choose(self, challenges: list[Challenge]) -> None:
        wanted = self._scheme
        offered = {challenge.scheme for challenge in challenges}
        digest = _strongest_digest(challenges)
        if digest is not None and wanted in ("", "digest"):
            self._scheme, self._challenge = "digest", digest
        elif "ntlm" in offered and self._ntlm_factory is not None and wanted in ("", "ntlm"):
            self._scheme = "ntlm"
        elif "basic" in offered and wanted == "" and ":" not in self._options.username:
            self._scheme = "basic"
        else:
            names = ", ".join(sorted(offered)) or "nothing"
            what = f"{wanted.capitalize()} is set" if wanted else "this library speaks Digest, NTLM and Basic"
            advice = f"NTLM needs {_EXTRA}" if "ntlm" in offered else "see ProxyOptions(auth=…)"
            raise ProxyError(f"it wants a login and offers {names}, but {what}: {advice}")

    def _is_stale(self, challenges: list[Challenge]) -> bool:
        """Is only the nonce too old? Believed once, so that a proxy cannot have requests sent without end."""
        digest = _strongest_digest(challenges)
        return (
            self._tried == 1 and digest is not None and digest.parameters.get("stale", "").lower() == "true"
        )

    def _basic(self) -> str:
        account = f"{self._options.username}:{self._options.password.reveal()}"
        encoded = base64.b64encode(account.encode())
        self.mask.add_sent(encoded)
        return encoded.decode("ascii")

    def _ntlm_message(self) -> Secret:
        options = self._options
        if self._ntlm is None or not self.same_connection:
            if self._ntlm_factory is None:
                raise FeatureUnavailable("NTLM needs an extra", needs=_EXTRA)
            self._ntlm = self._ntlm_factory(options.username, options.password, options.host)
            message = self._ntlm.initial_response() or b""
            self.same_connection = True
        else:
            assert self._challenge is not None
            message = self._respond(base64.b64decode(self._challenge.token))
            self.same_connection = False
            self._tried += 1
        return Secret("NTLM " + base64.b64encode(message).decode("ascii"))

    def _respond(self, challenge: bytes) -> bytes:
        assert self._ntlm is not None
        try:
            return self._ntlm.respond(challenge)
        except SMTPError as error:
            raise ProxyError(f"its NTLM challenge cannot be answered: {error.message}") from None

    def _take_ntlm(self, challenges: list[Challenge]) -> None:
        found = next((one for one in challenges if one.scheme == "ntlm" and _is_base64(one.token)), None)
        if found is None:
            raise ProxyError(
                "it did not go on with NTLM: check the account, and whether the proxy offers NTLM"
            )
        self._challenge = found


def _is_base64(token: str) -> bool:
    try:
        return bool(base64.b64decode(token, validate=True))
    except binascii.Error:
        return False


def _strongest_digest(challenges: list[Challenge]) -> Challenge | None:
    usable = [one for one in challenges if one.scheme == "digest" and digest_strength(one.parameters)]
    return max(usable, key=lambda one: digest_strength(one.parameters), default=None)


def _needs_login(challenges: list[Challenge]) -> ProxyError:
    names = ", ".join(dict.fromkeys(challenge.scheme for challenge in challenges)) or "nothing"
    return ProxyError(f"it wants a login (it offers {names}): set username and password in ProxyOptions")
