"""Names → addresses: by the system, by DNS servers of the user's choice, by the application."""

import asyncio
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidArgument, InvalidPort, ResolveError
from smtp_async.transport.names import AddressFamily
from smtp_async.transport.records import MX, SRV
from smtp_async.transport.resolve import (
    DNSMode,
    DNSOptions,
    DNSResolver,
    SystemResolver,
    endpoint,
    look_up,
    resolver_of,
)
from tests.lab import sockets
from tests.servers.dns import CHAIN, LONG_CHAIN, MANY
from tests.transport.lab import MANNERS, MuteNameServer, cancelled_everywhere

AUTO, IPV4, IPV6 = AddressFamily.AUTO, AddressFamily.IPV4, AddressFamily.IPV6


class TestDNS:
    def test_addresses_alternate_with_ipv6_first(self, ask):
        assert ask(lambda r: r.addresses("mail.lab.test", AUTO)) == ["::1", "127.0.0.1"]
        assert ask(lambda r: r.addresses("mail.lab.test", IPV4)) == ["127.0.0.1"]
        assert ask(lambda r: r.addresses("mail.lab.test", IPV6)) == ["::1"]

    @pytest.mark.parametrize(("name", "found"), [("v4.lab.test", "127.0.0.1"), ("v6.lab.test", "::1")])
    def test_one_family_is_enough(self, ask, name, found):
        assert ask(lambda r: r.addresses(name, AUTO)) == [found]

    def test_no_address_of_the_wanted_family(self, ask):
        with pytest.raises(ResolveError, match="v4.lab.test has no AAAA record") as caught:
            ask(lambda r: r.addresses("v4.lab.test", IPV6))
        assert caught.value.code == 11004 and not caught.value.temporary

    def test_no_such_name(self, ask):
        with pytest.raises(ResolveError, match="cannot resolve nowhere.lab.test") as caught:
            ask(lambda r: r.addresses("nowhere.lab.test", AUTO))
        assert caught.value.code == 11001 and not caught.value.temporary

    @pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".test", "x." * 200 + "test"])
    def test_no_name_at_all(self, ask, name):
        with pytest.raises(ResolveError) as caught:
            ask(lambda r: r.addresses(name, AUTO))
        assert caught.value.code == 11003

    def test_a_failing_server_is_worth_another_try(self, ask):
        with pytest.raises(ResolveError) as caught:
            ask(lambda r: r.addresses("mail.bogus.test", AUTO))
        assert caught.value.code == 11002 and caught.value.temporary

    @pytest.mark.parametrize("name", ["alias.lab.test", f"chain{CHAIN - 2}.lab.test", "ALIAS.lab.test."])
    def test_aliases_are_followed(self, ask, name):
        assert ask(lambda r: r.addresses(name, IPV4)) == ["127.0.0.1"]

    @pytest.mark.parametrize("name", [f"chain{LONG_CHAIN}.lab.test", "loop-a.lab.test", "loop-b.lab.test"])
    @pytest.mark.parametrize("at", ["server", "authority"])
    def test_aliases_without_end_are_not(self, dns, ask, name, at):
        with pytest.raises(ResolveError) as caught:
            ask(lambda r: r.addresses(name, IPV4), servers=(getattr(dns, at),))
        assert caught.value.code in (11002, 11003)

    def test_an_alias_of_nothing(self, ask):
        with pytest.raises(ResolveError) as caught:
            ask(lambda r: r.addresses("dangling.lab.test", AUTO))
        assert caught.value.code == 11001

    def test_an_answer_that_is_cut_short_is_asked_for_over_tcp(self, ask):
        assert len(ask(lambda r: r.addresses("many.lab.test", IPV4))) == MANY

    def test_mail_exchangers(self, ask):
        found = ask(lambda r: r.mx("lab.test"))
        assert sorted(found) == [MX(10, "mail.lab.test"), MX(20, "mail2.lab.test"), MX(20, "mail3.lab.test")]
        assert ask(lambda r: r.mx("null.lab.test")) == [MX(0, "")]

    def test_services(self, ask):
        assert ask(lambda r: r.srv("_submissions._tcp.lab.test")) == [SRV(0, 1, 2465, "mail.lab.test")]

    @pytest.mark.parametrize("name", ["localhost", "LOCALHOST.", "x.localhost"])
    def test_localhost_is_not_asked_for(self, run, name):
        resolver = DNSResolver(DNSOptions(servers=("127.0.0.1:1",)))
        assert run(resolver.addresses(name, AUTO)) == ["::1", "127.0.0.1"]
        assert run(resolver.addresses(name, IPV4)) == ["127.0.0.1"]

    def test_one_resolver_for_many_look_ups(self, ask):
        async def often(resolver):
            names = ["mail.lab.test", "v4.lab.test", "mail2.lab.test"] * 20
            return await asyncio.gather(*(resolver.addresses(name, IPV4) for name in names))

        assert ask(often)[:3] == [["127.0.0.1"], ["127.0.0.1"], ["127.0.0.2"]]

    def test_one_loop_after_the_other(self, dns):
        resolver = DNSResolver(DNSOptions(servers=(dns.server,)))
        for _ in range(2):
            assert asyncio.run(resolver.addresses("v4.lab.test", IPV4)) == ["127.0.0.1"]
        resolver.close()


class TestTime:
    def test_a_silent_server_and_one_that_answers(self, dns, ask):
        with MuteNameServer() as mute:
            servers = (mute.name, dns.server)
            # With the usual time for a query, that for the whole look-up would pass.
            limits = {"query_timeout": 0.1, "total_timeout": 2.9}
            assert ask(lambda r: r.addresses("v4.lab.test", IPV4), servers=servers, **limits)

    def test_silent_servers_only(self, ask):
        with MuteNameServer() as mute, pytest.raises(ResolveError) as caught:
            ask(lambda r: r.addresses("v4.lab.test", IPV4), servers=(mute.name,), query_timeout=0.05)
        assert caught.value.code == 11002

    def test_the_whole_look_up_has_a_limit(self, ask):
        with MuteNameServer() as mute, pytest.raises(ResolveError, match="within 0.05 s") as caught:
            ask(lambda r: r.addresses("v4.lab.test", AUTO), servers=(mute.name,), total_timeout=0.05)
        assert caught.value.code == 11002

    def test_nothing_listens(self, ask):
        with MuteNameServer() as mute:
            name = mute.name
        with pytest.raises(ResolveError) as caught:
            ask(lambda r: r.addresses("v4.lab.test", AUTO), servers=(name,))
        assert caught.value.code == 11002

    def test_a_family_that_is_silent_delays_the_other_little(self, run, monkeypatch):
        """RFC 8305 section 3: the query for AAAA is never answered."""

        class Half(DNSResolver):
            async def _ask(self, name, kind):
                from smtp_async.transport.records import Record

                if kind == "AAAA":
                    await asyncio.get_running_loop().create_future()
                return [Record(name, "A", "127.0.0.1")]

        async def scenario():
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await Half().addresses("mail.example", AUTO) == ["127.0.0.1"]
            assert loop.time() - began < 5

        run(scenario())

    @pytest.mark.parametrize(("manner", "moment"), MANNERS)
    @pytest.mark.parametrize("secure", [False, True])
    def test_cancelled_anywhere(self, dns, run, manner, moment, secure):
        async def scenario():
            resolver = DNSResolver(DNSOptions(servers=(dns.server,), secure=secure))

            async def look():
                return await resolver.addresses("mail.lab.test", AUTO)

            async for step in cancelled_everywhere(look, manner, moment):
                if not step.injected:
                    assert step.result == ["::1", "127.0.0.1"]
            resolver.close()

        run(scenario())

    def test_closed_it_holds_nothing(self, dns, run):
        async def scenario():
            before = sockets()
            for _ in range(50):
                resolver = DNSResolver(DNSOptions(servers=(dns.server,)))
                await resolver.addresses("v4.lab.test", IPV4)
                resolver.close()
            # c-ares closes its sockets in a thread of its own.
            async with asyncio.timeout(10):
                while sockets() > before:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

        run(scenario())


class TestOptions:
    @pytest.mark.parametrize(
        ("server", "found"),
        [
            ("192.0.2.1", ("192.0.2.1", 53)),
            ("192.0.2.1:5300", ("192.0.2.1", 5300)),
            ("2001:db8::1", ("2001:db8::1", 53)),
            ("[2001:db8::1]", ("2001:db8::1", 53)),
            ("[2001:db8::1]:5300", ("2001:db8::1", 5300)),
        ],
    )
    def test_servers(self, server, found):
        assert endpoint(server, 53) == found

    @pytest.mark.parametrize(
        "server",
        ["", "dns.example", "192.0.2.1:", "192.0.2.1:x", "192.0.2.1:0", "192.0.2.1:65536", "[::1]x", "1:２"],
    )
    def test_what_is_no_server(self, server):
        if server in ("192.0.2.1:",):
            # No port is the usual one.
            assert endpoint(server, 53) == ("192.0.2.1", 53)
            return
        with pytest.raises(InvalidArgument, match="a DNS server is an IP address"):
            DNSOptions(servers=(server,))

    @given(st.text(max_size=40) | st.text(":[].0123456789abcdef", max_size=20), st.integers(1, 65535))
    def test_any_text_is_a_server_or_refused(self, server, port):
        try:
            host, number = endpoint(server, port)
        except InvalidArgument:
            return
        ipaddress.ip_address(host.partition("%")[0])
        assert 0 < number < 65536

    @given(st.ip_addresses(), st.integers(1, 65535))
    def test_what_is_written_is_read(self, address, port):
        written = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        assert endpoint(written, 53) == (str(address), port)
        assert endpoint(str(address), port) == (str(address), port)

    @pytest.mark.parametrize("seconds", [0, -1, float("nan"), True, "1"])
    @pytest.mark.parametrize("name", ["query_timeout", "total_timeout"])
    def test_what_is_no_time_limit(self, name, seconds):
        with pytest.raises(InvalidArgument):
            DNSOptions(**{name: seconds})

    @pytest.mark.parametrize("port", [0, -1, 65536])
    def test_what_is_no_port(self, port):
        with pytest.raises(InvalidPort):
            DNSOptions(port=port)

    def test_servers_are_no_text(self):
        with pytest.raises(InvalidArgument, match="not one text"):
            DNSOptions(servers="192.0.2.1")  # type: ignore[arg-type]

    def test_those_that_are_named_are_asked(self, dns, ask):
        """The second, where nothing listens at the first; no other one knows the name."""
        with MuteNameServer() as mute:
            closed = mute.name
        assert ask(lambda r: r.addresses("v4.lab.test", IPV4), servers=(closed, dns.server)) == ["127.0.0.1"]

    def test_the_port_of_all_servers(self, dns, run):
        host, _, port = dns.server.partition(":")
        resolver = DNSResolver(DNSOptions(servers=(host,), port=int(port)))
        assert run(resolver.addresses("v4.lab.test", IPV4)) == ["127.0.0.1"]
        resolver.close()

    @pytest.mark.parametrize(
        ("settings", "kind"),
        [
            ({}, SystemResolver),
            ({"resolver": DNSMode.SYSTEM}, SystemResolver),
            ({"resolver": DNSMode.OWN}, DNSResolver),
            ({"servers": ("127.0.0.1",)}, DNSResolver),
            ({"secure": True}, DNSResolver),
        ],
    )
    def test_which_resolver(self, settings, kind):
        assert type(resolver_of(DNSOptions(**settings))) is kind

    def test_a_resolver_of_the_application(self):
        assert resolver_of(DNSOptions(resolver=Table({}))).__class__ is Table
        with pytest.raises(InvalidArgument, match="resolver=DNSMode.OWN"):
            DNSOptions(resolver=DNSMode.SYSTEM, servers=("127.0.0.1",))
        with pytest.raises(InvalidArgument, match="resolver=DNSMode.OWN"):
            DNSOptions(resolver=Table({}), secure=True)


class Table:
    """A resolver of the application: a table of names."""

    def __init__(self, table):
        self.table = table

    async def addresses(self, name, family):
        return self.table[name]

    async def mx(self, domain):
        return [MX(0, name) for name in self.table[domain]]

    async def srv(self, service):
        return []


class TestLookUp:
    def test_the_applications_own_resolver(self, run):
        table = Table({"mail.example": ["127.0.0.1", "::1", "127.0.0.2"]})
        found = run(look_up("mail.example", 25, AUTO, table))
        assert [info[4][0] for info in found] == ["127.0.0.1", "::1", "127.0.0.2"]
        assert [info[4][0] for info in run(look_up("mail.example", 25, IPV6, table))] == ["::1"]

    def test_it_gives_addresses_only(self, run):
        table = Table({"mail.example": ["other.example"], "v4.example": ["127.0.0.1"], "none.example": []})
        with pytest.raises(ResolveError, match="which is no address") as caught:
            run(look_up("mail.example", 25, AUTO, table))
        assert caught.value.code == 11003
        for name in ("v4.example", "none.example"):
            with pytest.raises(ResolveError, match="no address of the wanted family") as caught:
                run(look_up(name, 25, IPV6, table))
            assert caught.value.code == 11004

    def test_an_address_is_not_looked_up(self, run):
        assert run(look_up("127.0.0.1", 25, AUTO, Table({})))[0][4] == ("127.0.0.1", 25)

    def test_the_systems_resolver_gives_addresses(self, run):
        assert "127.0.0.1" in run(SystemResolver().addresses("localhost", IPV4))
