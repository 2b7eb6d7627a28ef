"""`smtp-async check --discover`: what was found, for people and for programs."""

import json

from smtp_async import ClientOptions, DNSOptions, Timeouts
from smtp_async.cli.discover import show_discovery
from smtp_async.cli.exits import Exit
from smtp_async.cli.output import Output
from tests.cli.conftest import USERS
from tests.client.test_discover import Zone
from tests.lab import tls_server, trusting


async def test_the_server_of_an_address(pki, capsys):
    async with tls_server(pki, users=USERS) as server:
        zone = Zone(("_submission", server.port, "localhost"))
        options = ClientOptions(
            dns=DNSOptions(resolver=zone), tls=trusting(pki), hello="client.test", timeouts=Timeouts.all(5)
        )
        assert await show_discovery(Output(), "ann@example.org", options, as_json=False) is Exit.OK
        said = capsys.readouterr().out
        assert f"OK localhost:{server.port} (starttls): The domain names it for submission" in said
        assert "; it offers PLAIN, LOGIN, CRAM-MD5." in said
        assert (
            f"Use: --server localhost:{server.port} --security starttls Its name is not in the domain" in said
        )
        assert await show_discovery(Output(), "ann@example.org", options, as_json=True) is Exit.OK
        found = json.loads(capsys.readouterr().out)
        assert found["best"] == found["servers"][0] and found["best"]["works"] is True
        assert found["servers"][1]["error"]["code"] == 11001 and found["problems"] == []
