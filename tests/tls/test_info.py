"""What was negotiated."""

import copy
import pickle
from typing import Any

import pytest

from smtp_async.tls import Certificate, ConnectionInfo, TLSOptions, make_context
from smtp_async.transport import dial
from tests.tls.certificates import der
from tests.transport.lab import CA, client_context, implicit, server_context, serving, sink


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
                info: Any = ConnectionInfo.of(stream, host="localhost", port=server.port)
                assert info.encrypted
                assert info.tls_version == "TLSv1.3"
                assert info.cipher.startswith("TLS_")
                assert info.bits >= 128
                assert info.verified is verifies
                assert (info.verification_error is None) is verifies
                assert info.chain == der(leaf)
                assert info.certificate == der(leaf)[0]
                assert info.facts == Certificate(info.certificate)
                assert info.facts.names == ("localhost",)
                assert repr(info.certificate) not in repr(info)
                assert pickle.loads(pickle.dumps(info)) == copy.copy(info) == info
                stream.abort()

        run(scenario())
