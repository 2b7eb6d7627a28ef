"""The choice of a SASL mechanism.

The order of preference is one table, `RANKING`, with a reason for each place. These rules take precedence:

* A password, a token, or a value from which a password could be guessed, is never sent in clear unless the application
  allows it by name (`allow_cleartext`).
* The server's offer only narrows the choice. An attacker who removes offers, or a server that refuses the better
  mechanism, cannot make the client use a weak one, because weak mechanisms must be named by the application. The client
  notices if the server offered a better one before (`better_before`).
* A password that the server refused is not sent again with another mechanism. The next mechanism is tried only if the
  server refuses the mechanism itself, and only if it does not show the password a second time (`may_follow`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final, NamedTuple

from ..errors import AuthenticationUnavailable, FeatureUnavailable, InvalidArgument
from .cram import CramMD5
from .credentials import Credentials, NamedMechanism, Strength
from .digest import DigestMD5
from .external import Anonymous, External
from .gssapi import GSSAPI
from .mechanism import Exposure, Mechanism, Needs, Peer
from .ntlm import NTLM
from .oauth import OAuthBearer, XOAuth2
from .plain import Login, Plain
from .scram import (
    ScramSHA1,
    ScramSHA1Plus,
    ScramSHA256,
    ScramSHA256Plus,
    ScramSHA512,
    ScramSHA512Plus,
)

__all__ = [
    "RANKING",
    "Place",
    "better_before",
    "candidates",
    "demand_sensible",
    "may_follow",
    "select",
]


class Place(NamedTuple):
    """A mechanism's place in the ranking.

    Attributes:
        mechanism: the class.
        reason: why the mechanism has this place.
        only_by_name: why the mechanism is used only if the application names it; empty if it need not be named.
    """

    mechanism: type[Mechanism]
    reason: str
    only_by_name: str = ""

    @property
    def name(self) -> str:
        """The name of the mechanism."""
        return self.mechanism.name


#: The best first, over TLS. In clear, mechanisms that do not show the password come first.
RANKING: Final[tuple[Place, ...]] = (
    Place(OAuthBearer, "the standard for tokens; it names account, host and port"),
    Place(XOAuth2, "for tokens, where the server offers nothing else"),
    Place(ScramSHA512Plus, "bound to the TLS connection; both sides are proved"),
    Place(ScramSHA512, "both sides are proved, the server never sees the password"),
    Place(ScramSHA256Plus, "as SCRAM-SHA-512-PLUS, with a shorter hash"),
    Place(ScramSHA256, "as SCRAM-SHA-512, with a shorter hash"),
    Place(ScramSHA1Plus, "SHA-1 is still sound here, because only its HMAC is used"),
    Place(ScramSHA1, "as SCRAM-SHA-1-PLUS, unbound"),
    Place(Plain, "one message with a defined charset; TLS alone protects the password"),
    Place(Login, "as PLAIN, with two more round trips and no standard"),
    Place(
        External,
        "the certificate of the TLS handshake proves the account",
        "a server may map a certificate to any account",
    ),
    Place(
        GSSAPI,
        "a Kerberos ticket proves both sides",
        "asking for tickets can take long and needs Kerberos set up",
    ),
    # With TLS these add nothing and require the server to store the password or an equivalent: never before PLAIN.
    # Without TLS an eavesdropper has to guess the password offline, while PLAIN would show it.
    Place(
        DigestMD5,
        "the server proves itself, but MD5 is broken and what the server stores is as good as the password",
        "it is obsolete (RFC 6331)",
    ),
    Place(
        CramMD5, "nothing proves the server, and MD5 is broken", "it makes servers keep passwords readable"
    ),
    Place(
        NTLM,
        "MD4 and RC4 are broken, and a login can be relayed",
        "its logins can be relayed to other servers",
    ),
    Place(Anonymous, "it proves nothing", "it logs in without an account"),
)
_PLACES: Final = {place.name: place for place in RANKING}

#: Replies that refuse the mechanism, not the account (RFC 4954 section 6).
_MECHANISM_REFUSED: Final = frozenset({504, 534, 538})


def select(credentials: Credentials, peer: Peer) -> Mechanism:
    """Return the mechanism to use first.

    Args:
        credentials: the account; `mechanisms` restricts the choice and sets its order. A token is a `Secret`.
        peer: the server and what it offers, after TLS has started.

    Raises:
        AuthenticationUnavailable, FeatureUnavailable, InvalidArgument: as `candidates`.
    """
    return candidates(credentials, peer)[0](credentials, peer)


def candidates(credentials: Credentials, peer: Peer) -> list[type[Mechanism]]:
    """Return the mechanisms that may be used, best first; at least one.

    Args:
        credentials: the account. A token may still be a provider.
        peer: the server and what it offers.

    Raises:
        AuthenticationUnavailable: no mechanism is offered, known and safe here; the message has the reason for each.
        FeatureUnavailable: a mechanism is named and offered, but its extra is not installed.
        InvalidArgument: the credentials lack what the mechanisms need, or a name is not that of a mechanism.
    """
    places = _order(credentials, peer)
    found, reasons = [], []
    for place in places:
        reason = _objection(place, credentials, peer)
        if reason:
            reasons.append(f"{place.name} {reason}")
        else:
            found.append(place.mechanism)
    if not found:
        _demand_enough(credentials, places, peer)
        raise AuthenticationUnavailable(_explanation(credentials, peer, reasons), stage="AUTH")
    return found


def demand_sensible(credentials: Credentials) -> None:
    """Refuse credentials that fit no server; call this before a connection is opened.

    Raises:
        InvalidArgument: a name is not that of a mechanism, or APOP's.
    """
    for one in credentials.mechanisms:
        _place_of(one)


def may_follow(code: int, tried: Mechanism, following: type[Mechanism], *, secure: bool) -> bool:
    """Tell whether `following` may be tried after the server refused `tried`.

    Args:
        code: of the reply. 535 and similar codes refuse the account, so no other mechanism is tried.
        tried: the refused mechanism; if it has shown the password or token, the next one must not show it again.
        following: the next mechanism.
        secure: False: an attacker on the network path may have sent the refusal, to get a mechanism that shows more.
    """
    if code not in _MECHANISM_REFUSED:
        return False
    if tried.revealed and _shown(following):
        return False
    return secure or _shown(following) <= _shown(type(tried))


def better_before(
    chosen: type[Mechanism], credentials: Credentials, peer: Peer, remembered: Collection[str]
) -> type[Mechanism] | None:
    """Return the stronger mechanism that would be used if the server repeated its former offers; otherwise None.

    All mechanisms that send the password itself count as equal here.

    Args:
        chosen: the mechanism that is used now.
        credentials, peer: as for `candidates`.
        remembered: the names of all mechanisms that this host has ever offered.
    """
    everything = replace(peer, offered=peer.offered | frozenset(remembered))
    best = candidates(credentials, everything)[0]
    if best is chosen or best.strength <= Strength.REVEALED or best.strength < chosen.strength:
        return None
    return best


# --- the order -----------------------------------------------------------------------------------------------


def _order(credentials: Credentials, peer: Peer) -> list[Place]:
    if credentials.mechanisms:
        return [_place_of(one) for one in credentials.mechanisms]
    # `sorted` is stable, so equal mechanisms keep the order of the table.
    return list(RANKING) if peer.secure else sorted(RANKING, key=lambda place: _shown(place.mechanism))


def _shown(mechanism: type[Mechanism]) -> bool:
    return mechanism.exposes is Exposure.SECRET


def _place_of(one: str | type[NamedMechanism]) -> Place:
    if isinstance(one, type) and issubclass(one, Mechanism):
        return Place(one, "the application's own")
    name = one.upper() if isinstance(one, str) else ""
    place = _PLACES.get(name)
    if place is not None:
        return place
    if name == "APOP":
        raise InvalidArgument(
            "APOP is a login of POP3, not of SMTP; CRAM-MD5 is similar, and over TLS PLAIN is as good"
        )
    known = ", ".join(_PLACES)
    raise InvalidArgument(
        f"{one!r} is neither the name of a mechanism nor a class derived from Mechanism; known are {known}"
    )


# --- objections ----------------------------------------------------------------------------------------------


#: Why a password stays here.
_UNPROTECTED: Final = "the connection is not protected by verified TLS"
_PROTECT: Final = "use security=Security.STARTTLS or IMPLICIT, or Credentials(allow_cleartext=True)"


def _objection(place: Place, credentials: Credentials, peer: Peer) -> str:
    """Return why the mechanism is not used; an empty text if it may be used.

    Raises:
        FeatureUnavailable: the mechanism was named, but its extra is not installed.
    """
    mechanism = place.mechanism
    if place.name not in peer.offered:
        return "is not offered"
    unsafe = not peer.secure and not credentials.allow_cleartext and mechanism.exposes.value
    if unsafe:
        return f"is offered, but {_UNPROTECTED}, so it {unsafe}"
    if place.only_by_name and not credentials.mechanisms and not _implied(place, credentials, peer):
        return (
            f"is offered, but is used only when named, because {place.only_by_name}: "
            f'Credentials(mechanisms=("{place.name}",))'
        )
    if not _has(mechanism.needs, credentials, peer):
        return f"is offered, but needs {mechanism.needs.value}"
    if credentials.authzid and not mechanism.takes_authzid:
        return "is offered, but cannot carry an authzid"
    if mechanism.strength < credentials.minimum_strength:
        return (
            f"is offered, but protects less ({mechanism.strength.name}) than "
            f"minimum_strength demands ({credentials.minimum_strength.name})"
        )
    if reason := mechanism.objection(credentials, peer):
        return f"is offered, but {reason}"
    extra = mechanism.missing()
    if extra and credentials.mechanisms:
        raise FeatureUnavailable(f"{place.name} needs a library that is not installed", needs=extra)
    return f"is offered, but needs {extra}" if extra else ""


def _implied(place: Place, credentials: Credentials, peer: Peer) -> bool:
    """Tell whether a mechanism that must be named may be used without its name."""
    needs = place.mechanism.needs
    if needs is Needs.IDENTITY:
        # Only the certificate can prove the account.
        return peer.certificate_shown and not credentials.password and credentials.token is None
    # In clear text, if the application allows that, any mechanism is better than one that shows the password.
    return not peer.secure and needs is Needs.PASSWORD and place.mechanism.exposes is Exposure.GUESSES


def _has(needs: Needs, credentials: Credentials, peer: Peer) -> bool:
    match needs:
        case Needs.PASSWORD:
            return bool(credentials.username and credentials.password)
        case Needs.TOKEN:
            return bool(credentials.token)
        case Needs.IDENTITY:
            return peer.certificate_shown
        case Needs.NOTHING:
            return True


def _demand_enough(credentials: Credentials, places: list[Place], peer: Peer) -> None:
    """Raise if the credentials are not sufficient for any mechanism, independent of the server's offer."""
    named = bool(credentials.mechanisms)
    needs = {place.mechanism.needs for place in places if named or not place.only_by_name} | (
        set() if named else {Needs.IDENTITY}
    )
    if not any(_has(one, credentials, peer) for one in needs):
        wanted = " or ".join(sorted(one.value for one in needs))
        raise InvalidArgument(f"the credentials are not enough to log in with: {wanted} is missing")


def _explanation(credentials: Credentials, peer: Peer, reasons: list[str]) -> str:
    server = (
        f"the server offers {', '.join(sorted(peer.offered))}"
        if peer.offered
        else "the server offers no authentication"
    )
    if credentials.mechanisms:
        names = ", ".join(_place_of(one).name for one in credentials.mechanisms)
        ours = f"only {names} may be used"
    else:
        ours = f"this client supports {', '.join(_PLACES)}"
        # Mechanisms that are not offered are not listed again.
        reasons = [reason for reason in reasons if not reason.endswith(" is not offered")]
    if reasons and all(_UNPROTECTED in reason for reason in reasons):
        # What this client supports would be a long list, and no help.
        return f"no way to log in: {server}; {'; '.join(reasons)}: {_PROTECT}"
    return f"no way to log in: {server}; {ours}" + "".join(f"; {reason}" for reason in reasons)
