"""What an HTTP proxy answered to CONNECT."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ProxyResponse"]


class ProxyResponse(NamedTuple):
    """The reply of an HTTP proxy to CONNECT (RFC 9110 section 9.3.6).

    Attributes:
        status: the status code, for example 200 or 407.
        reason: the text behind it, which may be empty.
        headers: names and values in the order of the reply; a name may stand there more than once.
        body: the body of a refusal, cut after 16 KiB; always empty if the proxy accepted.
    """

    status: int
    reason: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return the value of a header, in whatever case `name` is; several values are joined with a comma."""
        found = self.values(name)
        return ", ".join(found) if found else None

    def values(self, name: str) -> list[str]:
        """Return every value of a header, in order."""
        wanted = name.lower()
        return [value for key, value in self.headers if key.lower() == wanted]
