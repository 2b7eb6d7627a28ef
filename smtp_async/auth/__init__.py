"""SASL without I/O: challenge bytes in, response bytes out."""

from .credentials import Credentials, Strength, Token, TokenProvider
from .mechanism import Mechanism, Pending, decode_challenge

__all__ = ["Credentials", "Mechanism", "Pending", "Strength", "Token", "TokenProvider", "decode_challenge"]
