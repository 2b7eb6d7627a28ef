"""Whether the DNS has the key with which DKIM signs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..errors import SignerUnavailable, SigningError
from ..message.dkim import DKIM
from ..message.dkim_record import DKIMRecord
from ..message.sign import public_key_of

__all__ = ["require_record", "texts_of"]

#: Seconds for which a record that fits is believed.
_BELIEVED: Final = 3600.0
#: What `aiodns` says of a name or a type that is not there.
_ABSENT: Final = frozenset({1, 4})  # ARES_ENODATA, ARES_ENOTFOUND


async def require_record(dkim: DKIM, *, clock: Callable[[], float] = time.monotonic) -> Any:
    """Refuse to sign with a key that verifiers would not find; ask the DNS once an hour.

    Args:
        dkim: says where the record is, and how to look it up (`check_record`).
        clock: the time, in seconds.

    Returns:
        The public key of the record.

    Raises:
        SigningError: there is no record, or not of this key.
        SignerUnavailable: the DNS does not answer.
    """
    now = clock()
    if dkim.record is not None and now < dkim.record[0]:
        return dkim.record[1]
    name = dkim.record_name
    lookup = texts_of if dkim.check_record is True else dkim.check_record
    assert callable(lookup)
    texts = [text for text in await lookup(name) if "p=" in text]
    if not texts:
        raise SigningError(f"the DNS has no DKIM record at {name}")
    if len(texts) > 1:
        raise SigningError(f"the DNS has {len(texts)} DKIM records at {name}, and verifiers take any of them")
    try:
        record = DKIMRecord.parse(texts[0])
        own = public_key_of(dkim.signer)
        record.demand_fit(own, subdomain_identity=dkim.identity_is_below)
        if record.key_algorithm != dkim.signer.key_algorithm:
            raise SigningError(f"the record has a key of kind {record.key_algorithm}")
    except SigningError as error:
        raise SigningError(f"the key does not fit the DNS record at {name}: {error}") from error
    dkim.remember_record(now + _BELIEVED, record.public_key)
    return record.public_key


async def texts_of(name: str, *, servers: Sequence[str] = ()) -> list[str]:
    """Return the texts of all TXT records at a name.

    Args:
        name: the name.
        servers: the DNS servers to ask, as `"192.0.2.1:53"`; none takes the system's.

    Raises:
        SignerUnavailable: the DNS does not answer.
    """
    import aiodns

    resolver = aiodns.DNSResolver(servers or None, timeout=5.0, tries=2)
    try:
        answer: Any = await resolver.query_dns(name, "TXT")
    except aiodns.error.DNSError as error:
        if error.args and error.args[0] in _ABSENT:
            return []
        raise SignerUnavailable(f"the DNS record at {name} cannot be looked up: {error.args[-1]}") from error
    finally:
        await resolver.close()
    return [_text(record) for record in answer.answer]


def _text(record: Any) -> str:
    data = record.data.data
    return data.decode("utf-8", "replace") if isinstance(data, bytes) else str(data)
