"""proxy_tls.py: the TLS context for HTTPS proxies."""

import asyncio
import ssl

from smtp_async.connection.proxy_tls import ProxyTLS


async def test_it_verifies_and_is_made_once() -> None:
    shared = ProxyTLS()
    context = await shared.context()
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert await shared.context() is context


async def test_connections_at_the_same_moment_all_get_one() -> None:
    shared = ProxyTLS()
    contexts = await asyncio.gather(*(shared.context() for _ in range(3)))
    assert all(context.check_hostname for context in contexts)
