"""`Routes`: a table that tells which client delivers to which recipients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from ..errors import InvalidArgument
from ..model.address import Address
from ..model.domain import domain_forms
from ..model.envelope import Recipient
from ..spool.entry import Entry

if TYPE_CHECKING:
    from ..client.client import SMTPClient

__all__ = ["RouteChoice", "Routes"]

#: Returns the client for a recipient of a job; None for the default client of the processor. `Routes` is one.
RouteChoice: TypeAlias = "Callable[[Entry, Recipient], SMTPClient | None]"

_TABLES: Final = ("by_tag", "by_recipient", "by_sender")


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """A table of clients. The tag decides before the domain of the recipient, and that before the domain of the sender.

    A domain in the table stands for itself; with a dot in front, `".example.org"`, for all of its subdomains. The
    longest match decides. Case does not matter, and an internationalised domain may be written in either form.

    Attributes:
        by_tag: clients by the tag that was given to `put`.
        by_recipient: clients by the domain of the recipient.
        by_sender: clients by the domain of the sender, which is `""` for the empty return path of reports.

    Raises:
        InvalidArgument: a key is not a string, or a value not a client.
    """

    by_tag: Mapping[str, SMTPClient] = field(default_factory=dict)
    by_recipient: Mapping[str, SMTPClient] = field(default_factory=dict)
    by_sender: Mapping[str, SMTPClient] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _TABLES:
            table = getattr(self, name)
            for key, client in table.items():
                if not isinstance(key, str):
                    raise InvalidArgument(f"a key of {name} is a string, not {key!r}")
                if not hasattr(client, "send"):
                    raise InvalidArgument(f"{name}[{key!r}] is a client, not {client!r}")
            # Copied, so that a later change of the table of the caller changes no route.
            plain = str if name == "by_tag" else _plain
            object.__setattr__(self, name, {plain(key): client for key, client in table.items()})

    def __call__(self, entry: Entry, recipient: Recipient) -> SMTPClient | None:
        """Return the client for a recipient of a job, None if the table has none."""
        if entry.tag is not None and (found := self.by_tag.get(entry.tag)) is not None:
            return found
        return _by_domain(self.by_recipient, recipient.address) or _by_domain(
            self.by_sender, entry.envelope.sender
        )

    def clients(self) -> Iterator[SMTPClient]:
        """Iterate over the clients of the table; one that stands in it twice comes twice."""
        for name in _TABLES:
            yield from getattr(self, name).values()


def _by_domain(table: Mapping[str, SMTPClient], address: Address | None) -> SMTPClient | None:
    if not table:
        return None
    domain = "" if address is None else address.ascii_domain.lower()
    found = table.get(domain)
    while found is None and domain:
        domain = domain.partition(".")[2]
        found = table.get(f".{domain}") if domain else None
    return found


def _plain(domain: str) -> str:
    """Return a domain of the table as it is looked up."""
    dot, name = ("." if domain.startswith(".") else ""), domain.removeprefix(".")
    return dot + (domain_forms(name, lenient=True)[0].lower() if name else "")
