"""What a token endpoint answers (RFC 6749 section 5), read without input or output.

Whatever a server sends leads to an `Answer` or a `Failure`, never to an exception: a traceback would show the frame
that holds the text with the token.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeGuard
from urllib.parse import quote, quote_plus

from ..errors import SMTPError, TokenRefused, TokenUnavailable
from ..model.reply import printable
from ..model.secret import Mask, Secret

__all__ = [
    "LARGEST",
    "Answer",
    "Failure",
    "answer_in",
    "error_of",
    "failure_of",
    "read_answer",
    "read_object",
]

#: Octets of an answer. Tokens have some thousands.
LARGEST: Final = 256 * 1024
#: Characters of a server's own words that are told.
_LONGEST: Final = 200
#: Seconds that a token may live; what is longer is a mistake.
_LONGEST_LIFE: Final = 10 * 365 * 86400
#: Errors after which the same request may succeed later (RFC 6749 section 4.1.2.1, RFC 8628 section 3.5).
_TEMPORARY: Final = frozenset(
    {"server_error", "temporarily_unavailable", "slow_down", "authorization_pending"}
)
#: The other errors of RFC 6749 sections 4.1.2.1 and 5.2 and RFC 8628 section 3.5.
_PERMANENT: Final = frozenset(
    {
        "access_denied",
        "expired_token",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
        "unsupported_response_type",
    }
)
#: Statuses of the same kind, whatever the body says (RFC 9110 and RFC 6585).
_TEMPORARY_STATUS: Final = frozenset({408, 425, 429})


class Answer(NamedTuple):
    """A token that was issued.

    Attributes:
        token: the access token.
        expires_in: its life in seconds; None: not told.
        refresh_token: a new refresh token in place of the one used; None: the old one stays.
    """

    token: Secret
    expires_in: float | None
    refresh_token: Secret | None


class Failure(NamedTuple):
    """Why there is no token.

    Attributes:
        problem: the sentence for a person.
        error: the code, for example "invalid_grant"; empty: the server sent none, or one that no RFC names.
        permanent: is asking again of no use?
    """

    problem: str
    error: str = ""
    permanent: bool = False


def error_of(failure: Failure) -> SMTPError:
    """Return the exception for a failure."""
    return (TokenRefused if failure.permanent else TokenUnavailable)(failure.problem)


def read_object(body: bytes) -> Mapping[str, Any] | None:
    """Return the JSON object in `body`; None for anything else."""
    try:
        found = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_answer(status: int, body: bytes, secrets: Iterable[Secret], server: str) -> Answer | Failure:
    """Read the answer of a token endpoint.

    Args:
        status: of HTTP.
        body: the JSON.
        secrets: what was sent, which a server may repeat; no part of it is told.
        server: the endpoint's name for errors.
    """
    found = read_object(body)
    if status != 200:
        return failure_of(status, found, secrets, server)
    if found is None:
        return Failure(f"{server} sent no JSON object in place of a token")
    return answer_in(found, secrets, server)


def answer_in(found: Mapping[str, Any], secrets: Iterable[Secret], server: str) -> Answer | Failure:
    """Return what an answer that was parsed says; see `read_answer`."""
    # Some servers report errors with status 200.
    if "error" in found and "access_token" not in found:
        return failure_of(400, found, secrets, server)
    token, problem = _token(found)
    if token is None:
        return Failure(f"{server} sent JSON in which {problem}")
    renewed = found.get("refresh_token")
    return Answer(token, _life(found.get("expires_in")), Secret(renewed) if _is_token(renewed) else None)


def failure_of(
    status: int, found: Mapping[str, Any] | None, secrets: Iterable[Secret], server: str
) -> Failure:
    """Return what an error answer says (RFC 6749 section 5.2).

    Args:
        status: of HTTP.
        found: its JSON object; None: there is none.
        secrets: what was sent, which a server may repeat; no part of it is told.
        server: the endpoint's name for errors.
    """
    error = found.get("error") if found is not None else None
    if not isinstance(error, str) or not error:
        what = f"answered with status {status}"
        if 300 <= status < 400:
            what += ", a redirect, which is not followed with secrets"
        return Failure(f"{server} {what}")
    secrets = tuple(secrets)
    known = error if error in _TEMPORARY | _PERMANENT else ""
    said = known or masked(error, secrets)
    description = found.get("error_description") if found is not None else None
    why = f": {masked(description, secrets)}" if isinstance(description, str) and description else ""
    if error in _TEMPORARY or status >= 500 or status in _TEMPORARY_STATUS:
        return Failure(f"{server} issues no token now ({said}){why}", known)
    return Failure(f"{server} refuses to issue a token ({said}){why}", known, permanent=True)


def _token(found: Mapping[str, Any]) -> tuple[Secret | None, str]:
    """Return the access token, or what is wrong with the answer."""
    token = found.get("access_token")
    if not _is_token(token):
        return None, "access_token is missing or malformed"
    kind = found.get("token_type")
    # RFC 6749 section 7.1: a token of a type that is not understood must not be used.
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return None, 'token_type is not "Bearer"'
    return Secret(token), ""


def _is_token(value: Any) -> TypeGuard[str]:
    """Check for a text of visible ASCII characters (RFC 6749 appendix A.12, without the space)."""
    return isinstance(value, str) and bool(value) and all("!" <= one <= "~" for one in value)


def _life(value: Any) -> float | None:
    """Return `expires_in`, which some servers send as a text; None for what makes no sense."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= _LONGEST_LIFE and math.isfinite(value) else None


def masked(text: str, secrets: Iterable[Secret]) -> str:
    """Return a server's words on one line, without `secrets` and the parts of them that it may repeat."""
    mask = Mask()
    for secret in secrets:
        sent = secret.reveal()
        for form in {sent, quote(sent, safe=""), quote_plus(sent)}:
            mask.add_sent(form.encode("utf-8", "backslashreplace"))
        mask.add_secrets((sent.encode("utf-8", "backslashreplace"),))
    shown = mask(text.encode("utf-8", "backslashreplace")).decode("utf-8", "replace")
    return printable(" ".join(shown.split()), _LONGEST)
