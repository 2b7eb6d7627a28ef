"""Proxies on the way to a server: SOCKS4, SOCKS4a, SOCKS5 and HTTP CONNECT, one or a chain of them.

`chain.dial_through` goes through them. It is not imported here, because every client has options and few have a proxy.
"""

from .options import ProxyAuth, ProxyOptions, ProxyType

__all__ = ["ProxyAuth", "ProxyOptions", "ProxyType"]
