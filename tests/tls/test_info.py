"""What was negotiated."""

import copy
import pickle
from typing import Any

import pytest

from smtp_async.tls import Certificate, ConnectionInfo, TLSOptions, make_context
from smtp_async.tls.info import judged_by_openssl
from smtp_async.transport import Stream, dial
from tests.tls.certificates import der
from tests.transport.lab import CA, client_context, implicit, server_context, serving, sink


def described(stream: Stream, port: int) -> ConnectionInfo:
    """What was negotiated, with OpenSSL's verdict."""
    assert stream.ssl_object is not None
    found = judged_by_openssl(stream.ssl_object)
    return ConnectionInfo.of(stream, host="localhost", port=port, validation=found, verified=found.verified)


class TestInfo:
    def test_plain(self, run):
        async def scenario():
            async with serving(sink) as server:
                stream = await dial("127.0.0.1", server.port)
                info: Any = ConnectionInfo.of(stream, host="localhost", port=server.port)
                assert (info.host, info.port) == ("localhost", server.port)
                assert info.peer == ("127.0.0.1", server.port)
                assert info.local == stream.local
                assert not info.encrypted
                assert info.verified is None
                assert info.certificate is None
                assert info.facts is None
                for name in (
                    "suite",
                    "cipher",
                    "bits",
                    "block_size",
                    "aead",
                    "digest",
                    "exportable",
                    "group",
                ):
                    assert getattr(info, name) is None
                for name in ("key_exchange", "key_exchange_bits", "forward_secrecy", "public_key_bits"):
                    assert getattr(info, name) is None
                assert not info.server_authenticated
                stream.abort()

        run(scenario())

    @pytest.mark.parametrize("verifies", [True, False])
    def test_tls(self, run, verifies):
        async def scenario():
            context = client_context()
            if not verifies:
                context.check_hostname = False
            make_context(TLSOptions(context=context))
            leaf = CA.issue_cert("localhost")
            async with serving(implicit(server_context(leaf), sink)) as server:
                stream = await dial("127.0.0.1", server.port)
                await stream.start_tls(context, "localhost")
                info: Any = described(stream, server.port)
                assert info.encrypted
                assert info.tls_version == "TLSv1.3"
                assert info.suite == "TLS_AES_256_GCM_SHA384"
                assert (info.cipher, info.bits, info.digest) == ("AES-256-GCM", 256, "SHA-384")
                assert (info.group, info.key_exchange, info.forward_secrecy) == ("x25519", "ECDHE", True)
                assert (info.client_auth_requested, info.session_resumed) == (False, False)
                assert info.verified is verifies
                assert (info.validation.reason is None) is verifies
                assert info.chain == der(leaf)
                assert info.certificate == der(leaf)[0]
                assert info.facts == Certificate(info.certificate)
                assert info.facts.names == ("localhost",)
                assert repr(info.certificate) not in repr(info)
                assert pickle.loads(pickle.dumps(info)) == copy.copy(info) == info
                stream.abort()

        run(scenario())

    def test_what_nobody_watched_is_not_told(self, run):
        """An application's context may have a callback of its own."""

        async def scenario():
            context: Any = client_context()
            context._msg_callback = lambda *args: None
            make_context(TLSOptions(context=context))
            leaf = CA.issue_cert("localhost")
            async with serving(implicit(server_context(leaf), sink)) as server:
                stream = await dial("127.0.0.1", server.port)
                await stream.start_tls(context, "localhost")
                info: Any = described(stream, server.port)
                assert info.cipher == "AES-256-GCM" and info.chain == der(leaf) and info.verified
                assert info.server_authenticated
                for name in ("group", "key_exchange", "key_exchange_bits", "forward_secrecy", "prime_bits"):
                    assert getattr(info, name) is None
                assert (
                    info.signature_algorithm
                    is info.client_auth_requested
                    is info.client_authenticated
                    is None
                )
                stream.abort()

        run(scenario())


def of(**facts: Any) -> ConnectionInfo:
    return ConnectionInfo(host="mx.test", encrypted=True, **facts)


def test_every_connection_has_an_id_of_its_own() -> None:
    assert len({of().id for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"suite": "TLS_AES_128_GCM_SHA256", "key_exchange": "PSK"}, (None, False, True)),
        (
            {"suite": "TLS_DHE_PSK_WITH_AES_128_CCM", "key_exchange": "DHE", "prime_bits": 3072},
            (3072, True, True),
        ),
        (
            {"suite": "TLS_DH_anon_WITH_AES_128_GCM_SHA256", "key_exchange": "DHE", "prime_bits": 1},
            (1, True, False),
        ),
        (
            {"suite": "TLS_AES_128_GCM_SHA256", "key_exchange": "DHE", "group": "ffdhe3072"},
            (3072, True, True),
        ),
        (
            {"suite": "TLS_AES_128_GCM_SHA256", "key_exchange": "ECDHE-MLKEM", "group": "X25519MLKEM768"},
            (253, True, True),
        ),
        ({"suite": "GOST2012-KUZNYECHIK", "key_exchange": None}, (None, None, False)),
    ],
)
def test_what_follows(facts: dict[str, Any], expected: tuple[Any, ...]) -> None:
    info = of(**facts)
    assert (info.key_exchange_bits, info.forward_secrecy, info.server_authenticated) == expected


def test_the_count_of_bytes_goes_on_in_a_copy_and_stops_in_a_pickle() -> None:
    info = of()
    copied, pickled = copy.copy(info), pickle.loads(pickle.dumps(info))
    info.traffic.sent += 5
    info.traffic.received += 7
    assert (copied.bytes_sent, copied.bytes_received) == (5, 7)
    assert (pickled.bytes_sent, pickled.bytes_received) == (0, 0)
    assert pickled == info
