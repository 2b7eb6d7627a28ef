"""SASL without I/O: challenge bytes in, response bytes out."""

from .credentials import Credentials, Strength, Token, TokenProvider
from .mechanism import Exposure, Mechanism, Needs, Peer, Pending, decode_challenge, encoded

__all__ = [
    "Credentials",
    "Exposure",
    "Mechanism",
    "Needs",
    "Peer",
    "Pending",
    "Strength",
    "Token",
    "TokenProvider",
    "decode_challenge",
    "encoded",
]
