"""SASL without I/O: challenge bytes in, response bytes out."""

from .mechanism import (
    RANKING,
    Credentials,
    Mechanism,
    Pending,
    decode_challenge,
    select,
)

__all__ = [
    "RANKING",
    "Credentials",
    "Mechanism",
    "Pending",
    "decode_challenge",
    "select",
]
