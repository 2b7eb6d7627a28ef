"""The text of a queue file without a spool, for applications that store or inspect the text themselves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ...model.address import Address
from ...model.envelope import Recipient
from ...model.signing import MessageSigner, signers_of
from ..record import encode_header
from ..submission import Adapt, JobOptions, job_id, submission

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
    sign: MessageSigner | Sequence[MessageSigner] = (),
) -> str:
    r"""Return the text of the file that `DirectorySpool.put` would write; the arguments are the same.

    Encoded as UTF-8 with `surrogateescape`, and without translation of line endings, the text is a queue file. The file
    may be stored in a spool directory as `<id>.queued`, with the id that its header contains.

    Raises:
        MissingSender, MissingRecipient, InvalidArgument: the message cannot be sent.
        SigningError: it cannot be signed.
        FileError: a part of the message cannot be read.
    """
    options = JobOptions.checked(key, not_before, expires)
    signers = signers_of(sign)
    job = await submission(message, sender, recipients, options=options, adapt=adapt, sign=signers)
    return (encode_header(job, job_id(job)) + job.body).decode("utf-8", "surrogateescape")
