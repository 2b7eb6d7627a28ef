"""Proxies on the way to a server: SOCKS4, SOCKS4a, SOCKS5 and HTTP CONNECT, one or a chain of them."""

from .chain import dial_through
from .options import ProxyAuth, ProxyOptions, ProxyType

__all__ = ["ProxyAuth", "ProxyOptions", "ProxyType", "dial_through"]
