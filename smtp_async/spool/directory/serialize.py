"""A queue file without a queue: for those who keep the text elsewhere, or want to look at it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ...model.address import Address
from ...model.envelope import Recipient
from ..record import encode
from ..submission import Adapt, submission
from .enqueue import id_of

__all__ = ["serialize"]


async def serialize(
    message: Any,
    *,
    sender: str | Address | None = None,
    recipients: Sequence[str | Address | Recipient] | None = None,
    key: str | None = None,
    not_before: float | datetime | None = None,
    expires: float | datetime | None = None,
    adapt: Adapt | None = None,
) -> str:
    r"""Return the text that `DirectorySpool.put` would write for a message; the arguments are the same.

    Encoded as UTF-8 with `surrogateescape`, without translating its line ends, it is a queue file: it may be stored in
    a spool directory as `<id>.queued`, the id being the one in its header.

    Raises:
        MissingSender, MissingRecipient, InvalidArgument: what cannot be sent.
        FileError: a part of it cannot be read.
    """
    job = await submission(
        message, sender, recipients, key=key, not_before=not_before, expires=expires, adapt=adapt
    )
    return (encode(job, id_of(job)) + job.body).decode("utf-8", "surrogateescape")
