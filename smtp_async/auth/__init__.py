"""SASL without I/O: challenge bytes in, response bytes out."""

from .mechanism import Credentials, Mechanism, Pending, decode_challenge

__all__ = ["Credentials", "Mechanism", "Pending", "decode_challenge"]
