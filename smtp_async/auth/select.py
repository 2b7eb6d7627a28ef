"""The choice of a SASL mechanism.

The order of preference is one table, `RANKING`, with the reason beside each place. Three rules come before it:

* A password, or a value from which it could be guessed, never travels in clear unless the application allows it by
  name (`allow_cleartext`).
* The server's offer only narrows the choice. An attacker who removes offers, or a server that refuses the better
  mechanism, cannot make the client use a weak one: a mechanism that is weak wherever it is used must be named by the
  application.
* One mechanism is tried. A 535 means that the password is wrong, and sending it again by another mechanism would only
  expose it twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from ..errors import AuthenticationUnavailable, InvalidArgument
from .cram import CramMD5
from .credentials import Credentials
from .mechanism import Mechanism
from .plain import Login, Plain

__all__ = ["RANKING", "Place", "select"]


class Place(NamedTuple):
    """A mechanism's place in the ranking.

    Attributes:
        name: the mechanism's name.
        make: returns the mechanism for one exchange.
        reveals_password: the server and any eavesdropper get the password itself.
        only_by_name: why the mechanism is used over TLS only if the application names it; empty if it is used anyway.
        takes_authzid: the mechanism can carry an authorization identity.
    """

    name: str
    make: Callable[[Credentials], Mechanism]
    reveals_password: bool
    only_by_name: str = ""
    takes_authzid: bool = False


#: The best first, over TLS. In clear, mechanisms that do not reveal the password come first.
RANKING: Final[tuple[Place, ...]] = (
    # One message, one round trip, a standard with a defined charset; TLS protects the password.
    Place("PLAIN", Plain, reveals_password=True, takes_authzid=True),
    # Never standardised, two more round trips, no defined charset: for servers that offer nothing else.
    Place("LOGIN", Login, reveals_password=True),
    # Inside TLS it adds nothing and requires the server to store the password in clear: never before PLAIN.
    # Without TLS an eavesdropper has to guess the password offline, where PLAIN would show it.
    Place(
        "CRAM-MD5",
        CramMD5,
        reveals_password=False,
        only_by_name="it makes servers keep passwords readable",
    ),
)


def select(offered: Collection[str], credentials: Credentials, *, secure: bool) -> Mechanism:
    """Return the mechanism to use.

    Args:
        offered: names from the server's AUTH line, after TLS has started.
        credentials: the account; `mechanisms` restricts the choice and sets its order.
        secure: the connection is encrypted to a verified server, or is a Unix socket.

    Raises:
        AuthenticationUnavailable: no mechanism is offered, known and safe here; the message says why, for each.
        InvalidArgument: user name or password is missing.
    """
    if not credentials.username or not credentials.password:
        raise InvalidArgument("credentials need a user name and a password")
    names = {name.upper() for name in offered}
    reasons = []
    for place in _order(credentials, secure=secure):
        reason = _objection(place, names, credentials, secure=secure)
        if not reason:
            return place.make(credentials)
        reasons.append(reason)
    raise AuthenticationUnavailable(_explanation(offered, credentials, reasons), stage="AUTH")


def _order(credentials: Credentials, *, secure: bool) -> list[Place]:
    if credentials.mechanisms:
        known = {place.name: place for place in RANKING}
        return [known[name] for name in _named(credentials) if name in known]
    # `sorted` is stable: mechanisms that are alike keep the order of the table.
    return list(RANKING) if secure else sorted(RANKING, key=lambda place: place.reveals_password)


def _named(credentials: Credentials) -> list[str]:
    return [(one if isinstance(one, str) else one.name).upper() for one in credentials.mechanisms]


def _objection(place: Place, offered: set[str], credentials: Credentials, *, secure: bool) -> str:
    if place.name not in offered:
        return f"{place.name} is not offered"
    if not secure and not credentials.allow_cleartext:
        leak = "would show the password" if place.reveals_password else "would let others guess the password"
        return f"{place.name} is offered, but the connection is not protected by verified TLS, so it {leak}"
    if credentials.authzid and not place.takes_authzid:
        return f"{place.name} is offered, but cannot carry an authzid"
    if secure and place.only_by_name and not credentials.mechanisms:
        return (
            f"{place.name} is offered, but is used only when named, because {place.only_by_name}: "
            f'Credentials(mechanisms=("{place.name}",))'
        )
    return ""


def _explanation(offered: Collection[str], credentials: Credentials, reasons: list[str]) -> str:
    server = (
        f"the server offers {', '.join(sorted(offered))}"
        if offered
        else "the server offers no authentication"
    )
    if credentials.mechanisms:
        ours = f"only {', '.join(_named(credentials))} may be used"
    else:
        ours = f"this side knows {', '.join(place.name for place in RANKING)}"
    return f"no way to log in: {server}; {ours}" + "".join(f"; {reason}" for reason in reasons)
