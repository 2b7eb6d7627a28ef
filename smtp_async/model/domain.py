"""The domain of a mail address: host names in A-labels and U-labels, and address literals.

The package `idna` implements IDNA 2008, with the mapping of UTS 46 without its transitional step: `faß.de` becomes
`xn--fa-hia.de`, not `fass.de`, which belongs to another registrant. A name in ASCII costs one regular expression.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from ..errors import InvalidAddress, InvalidArgument
from .invisible import BLANKS, hidden_character, named
from .reply import printable

__all__ = ["domain_forms", "full_host_name", "hello_name"]

#: RFC 5321 section 4.5.3.1.2.
MAX_DOMAIN: Final = 255
#: RFC 5321 section 4.1.2 with the 63 octets of RFC 1035.
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?"

#: Names of systems that were given no name.
_PLACEHOLDERS: Final = frozenset({"localdomain", "localdomain4", "localdomain6", "localhost"})

_HOST_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# With underscores, which a host name cannot have, but some hosts use.
_LENIENT_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_\-]{0,61}[A-Za-z0-9_])?"
_LENIENT_NAME: Final = re.compile(rf"{_LENIENT_LABEL}(?:\.{_LENIENT_LABEL})*")
_BLANK: Final = re.compile(f"[{BLANKS}]")


def domain_forms(domain: str, *, lenient: bool = False) -> tuple[str, str]:
    """Return the domain in A-labels, and in the form for SMTPUTF8 (U-labels if it was given so).

    Args:
        domain: a host name or an address literal.
        lenient: accept underscores in a host name in ASCII.

    Raises:
        InvalidAddress: the domain is neither, or contains an invisible character.
    """
    if len(domain) > MAX_DOMAIN:
        raise InvalidAddress(_not_a_domain(domain, f"it is longer than {MAX_DOMAIN} octets"))
    if domain.startswith("["):
        _check_literal(domain)
        return domain, domain
    if domain.isascii():
        ascii_form = unicode_form = domain
        if "xn--" in domain.lower():
            _to_unicode(domain)
    else:
        # Check before the mapping, which drops most of these characters and so returns another name. The joiners are
        # left to IDNA, which defines where they are allowed (RFC 5892 appendix A).
        _check_visible(domain)
        ascii_form, unicode_form = _mapped(domain)
    # Check the result of the mapping, too.
    if len(ascii_form) > MAX_DOMAIN:
        raise InvalidAddress(_not_a_domain(domain, f"it is longer than {MAX_DOMAIN} octets"))
    if _HOST_NAME.fullmatch(ascii_form) is None and not (lenient and _LENIENT_NAME.fullmatch(ascii_form)):
        raise InvalidAddress(_not_a_domain(domain, _reason(ascii_form)))
    return ascii_form, unicode_form


def _check_visible(domain: str) -> None:
    hidden = hidden_character(domain, joiners=True)
    if hidden is not None:
        raise InvalidAddress(
            _not_a_domain(domain, f"it holds a character that cannot be seen: {named(hidden)}")
        )
    blank = _BLANK.search(domain)
    if blank is not None:
        raise InvalidAddress(_not_a_domain(domain, f"it holds a blank: {named(blank[0])}"))


def _reason(domain: str) -> str:
    if _LENIENT_NAME.fullmatch(domain):
        return (
            "no host name has an underscore (RFC 5321 section 2.3.5); Recipient(…, lenient=True) and "
            "Address.parse(…, lenient=True) accept it"
        )
    return "a domain consists of letters, digits, hyphens and single dots"


def hello_name(name: str) -> str:
    """Return the name of this client for EHLO: a host name in A-labels, or an address literal.

    Args:
        name: a host name, an IP address, or a literal (RFC 5321 section 4.1.3).

    Raises:
        InvalidArgument: strict servers would refuse it.
    """
    import ipaddress

    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        pass
    else:
        return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"
    try:
        return domain_forms(name)[0]
    except InvalidAddress:
        what = f"“{printable(name, 80)}” cannot be sent in EHLO"
        if "_" in name:
            reason = (
                "servers refuse names with an underscore, which no host name has (RFC 5321 section 4.1.2)"
            )
        else:
            reason = "a host name of letters, digits, hyphens and dots is needed, or an IP address"
        raise InvalidArgument(f"{what}: {reason}. Without hello the client finds a name itself") from None


def full_host_name(name: str) -> str | None:
    """Return a host name in the form that strict servers accept in EHLO, else None: RFC 5321 section 2.3.5.

    The name must have a dot and only the characters of host names: many servers refuse an underscore. Systems that were
    given no name call themselves `localhost.localdomain`, which is not accepted.
    """
    name = name.removesuffix(".")
    last = name.rpartition(".")[2].lower()
    if last == name.lower() or last in _PLACEHOLDERS or last.isdigit() or len(name) > MAX_DOMAIN:
        return None
    return name if _HOST_NAME.fullmatch(name) else None


# Cached, because three rounds of mapping and checking for each address would be most of the cost of a mailing to one
# host.
@lru_cache(maxsize=1024)
def _mapped(domain: str) -> tuple[str, str]:
    ascii_form = _to_ascii(domain)
    return ascii_form, _to_unicode(ascii_form)


def _to_ascii(domain: str) -> str:
    """Return the A-labels of a domain: IDNA 2008, mapped by UTS 46 (not transitional), STD 3 rules."""
    import idna  # imported here because few addresses need the module, and it loads slowly

    try:
        return idna.encode(domain, uts46=True, std3_rules=True).decode("ascii")
    except UnicodeError as error:  # the base class of IDNAError
        raise InvalidAddress(_not_a_domain(domain, str(error))) from error


def _to_unicode(domain: str) -> str:
    """Return the U-labels of a domain; an A-label must be the encoding of its U-label (RFC 5891 section 5.4)."""
    import idna

    try:
        labels = [idna.ulabel(label) if label[:4].lower() == "xn--" else label for label in domain.split(".")]
    except UnicodeError as error:
        raise InvalidAddress(_not_a_domain(domain, str(error))) from error
    unicode_form = ".".join(labels)
    if _to_ascii(unicode_form).lower() != domain.lower():
        raise InvalidAddress(_not_a_domain(domain, "one of its A-labels is not the encoding of a name"))
    return unicode_form


def _check_literal(domain: str) -> None:
    """Accept `[1.2.3.4]` and `[IPv6:…]`, RFC 5321 section 4.1.3; no other tag is registered."""
    import ipaddress

    text = domain[1:-1]
    try:
        if not domain.endswith("]") or "%" in text:
            raise ValueError("not an address literal")
        if text[:5].lower() == "ipv6:":
            ipaddress.IPv6Address(text[5:])
        else:
            ipaddress.IPv4Address(text)
    except ValueError as error:
        raise InvalidAddress(_not_a_domain(domain, str(error))) from error


def _not_a_domain(domain: str, reason: str) -> str:
    return f"“{printable(domain, 80)}” is not the domain of a mail address: {reason}"
