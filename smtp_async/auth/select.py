"""Which mechanism is chosen.

The order of preference is one table, `RANKING`, with the reason beside each place. Three rules stand above
it:

* A password never travels in clear unless the application says so by name (`allow_cleartext`), and neither
  does anything from which it could be guessed.
* What the server offers only narrows the choice. An attacker who removes offers, or a server that refuses the
  better mechanism, cannot bring us below the table's floor: a mechanism that is weak wherever it is used has
  to be asked for by name.
* One mechanism is tried. After a 535 the password is wrong, and sending it again in another wrapping would
  only show it twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from ..errors import AuthenticationUnavailable, InvalidArgument
from .cram import CramMD5
from .mechanism import Credentials, Mechanism
from .plain import Login, Plain

__all__ = ["RANKING", "Place", "select"]


class Place(NamedTuple):
    """A mechanism's place in the ranking.

    Attributes:
        name: of the mechanism.
        make: returns it for an exchange.
        reveals_password: does the server, and whoever reads along, get the password itself?
        only_by_name: why it is not chosen unless it is asked for by name over TLS; empty if it is.
        takes_authzid: can it carry an authorization identity?
    """

    name: str
    make: Callable[[Credentials], Mechanism]
    reveals_password: bool
    only_by_name: str = ""
    takes_authzid: bool = False


#: Best first, over TLS. In clear, what does not reveal the password goes before what does.
RANKING: Final[tuple[Place, ...]] = (
    # One message, one round trip, a standard with a defined charset; TLS is what protects it.
    Place("PLAIN", Plain, reveals_password=True, takes_authzid=True),
    # Never standardised, two round trips more, no defined charset: for servers that know nothing else.
    Place("LOGIN", Login, reveals_password=True),
    # Inside TLS it adds nothing, and makes the server keep the password readable: never before PLAIN.
    # Outside, whoever reads along can guess at the password at leisure, but does not have it yet.
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
        credentials: who we are; `mechanisms` restricts the choice and sets its order.
        secure: is the connection encrypted to a verified server (or a Unix socket)?

    Raises:
        AuthenticationUnavailable: none is offered, known and safe here; the message says why, for each.
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
    raise AuthenticationUnavailable(_teach(offered, credentials, reasons), stage="AUTH")


def _order(credentials: Credentials, *, secure: bool) -> list[Place]:
    if credentials.mechanisms:
        known = {place.name: place for place in RANKING}
        return [known[name.upper()] for name in credentials.mechanisms if name.upper() in known]
    # The sort keeps the order of equals.
    return list(RANKING) if secure else sorted(RANKING, key=lambda place: place.reveals_password)


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


def _teach(offered: Collection[str], credentials: Credentials, reasons: list[str]) -> str:
    server = (
        f"the server offers {', '.join(sorted(offered))}"
        if offered
        else "the server offers no authentication"
    )
    if credentials.mechanisms:
        ours = f"only {', '.join(credentials.mechanisms)} may be used"
    else:
        ours = f"this side knows {', '.join(place.name for place in RANKING)}"
    return f"no way to log in: {server}; {ours}" + "".join(f"; {reason}" for reason in reasons)
