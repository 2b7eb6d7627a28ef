"""What DNSSEC protects is taken, everything else is not: by Unbound, which validates."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import FeatureUnavailable, InvalidArgument, ResolveError
from smtp_async.transport.dnssec import local_servers
from smtp_async.transport.names import AddressFamily
from smtp_async.transport.records import MX, SRV
from smtp_async.transport.resolve import DNSOptions
from tests.servers.dns import MANY
from tests.transport.lab import MuteNameServer

AUTO, IPV4, IPV6 = AddressFamily.AUTO, AddressFamily.IPV4, AddressFamily.IPV6


def test_signed(ask):
    assert ask(lambda r: r.addresses("mail.lab.test", AUTO), secure=True) == ["::1", "127.0.0.1"]
    assert ask(lambda r: r.addresses("alias.lab.test", IPV4), secure=True) == ["127.0.0.1"]
    assert len(ask(lambda r: r.mx("lab.test"), secure=True)) == 3
    assert ask(lambda r: r.mx("null.lab.test"), secure=True) == [MX(0, "")]
    assert ask(lambda r: r.srv("_submission._tcp.lab.test"), secure=True) == [
        SRV(0, 1, 2587, "mail.lab.test")
    ]
    assert len(ask(lambda r: r.addresses("many.lab.test", IPV4), secure=True)) == MANY


@pytest.mark.parametrize(("name", "code"), [("nowhere.lab.test", 11001), ("mail2.lab.test", 11004)])
def test_that_there_is_nothing_is_signed_too(ask, name, code):
    with pytest.raises(ResolveError) as caught:
        ask(lambda r: r.addresses(name, IPV6), secure=True)
    assert caught.value.code == code


@pytest.mark.parametrize("zone", ["plain.test", "bogus.test"])
@pytest.mark.parametrize("name", ["mail", "nowhere", "alias"])
def test_unsigned_and_bogus_answers_are_not_taken(ask, zone, name):
    with pytest.raises(ResolveError) as caught:
        ask(lambda r: r.addresses(f"{name}.{zone}", IPV4), secure=True)
    assert caught.value.code == 11003 and not caught.value.temporary
    with pytest.raises(ResolveError) as caught:
        ask(lambda r: r.mx(zone), secure=True)
    assert caught.value.code == 11003


def test_a_server_that_does_not_validate_vouches_for_nothing(dns, ask):
    with pytest.raises(ResolveError, match="not protected by DNSSEC"):
        ask(lambda r: r.addresses("mail.lab.test", IPV4), secure=True, servers=(dns.authority,))


def test_silent(dns, ask):
    with MuteNameServer() as mute:
        servers = (mute.name, dns.server)
        assert ask(lambda r: r.mx("null.lab.test"), servers=servers, secure=True, query_timeout=0.1)
        with pytest.raises(ResolveError, match="no validating resolver answers") as caught:
            ask(lambda r: r.mx("lab.test"), servers=(mute.name,), secure=True, query_timeout=0.05)
    assert caught.value.code == 11002


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".test"])
def test_no_name_at_all(ask, name):
    with pytest.raises(ResolveError) as caught:
        ask(lambda r: r.addresses(name, AUTO), secure=True)
    assert caught.value.code == 11003


def test_only_a_resolver_on_this_machine_is_believed():
    with pytest.raises(InvalidArgument, match="on this machine"):
        DNSOptions(servers=("127.0.0.1", "192.0.2.1"), secure=True)
    DNSOptions(servers=("127.0.0.1", "[::1]:5300"), secure=True)


def test_nor_one_of_the_system_elsewhere(tmp_path):
    file = tmp_path / "resolv.conf"
    for servers in ("", "nameserver 192.0.2.1\nnameserver nonsense\nnameserver\n"):
        file.write_text(f"search x\n{servers}")
        with pytest.raises(ResolveError, match="the system asks none") as caught:
            local_servers(str(file))
        assert caught.value.code == 11003
    with pytest.raises(ResolveError, match="the system asks none"):
        local_servers(str(tmp_path / "none"))
    file.write_text("nameserver 192.0.2.1\nnameserver 127.0.0.53\nnameserver ::1\n")
    assert local_servers(str(file)) == [("127.0.0.53", 53), ("::1", 53)]


def test_without_dnspython(ask, monkeypatch):
    monkeypatch.setitem(sys.modules, "dns.query", None)
    with pytest.raises(FeatureUnavailable) as caught:
        ask(lambda r: r.mx("lab.test"), secure=True)
    assert caught.value.needs == "smtp-async[dnssec]"


@given(
    st.lists(
        st.sampled_from(["nameserver", "127.0.0.1", "::1", "192.0.2.1", "#", ";", "x", "\n", "\t", "\0", "ü"])
    )
)
def test_any_configuration_gives_loopback_addresses_or_an_error(tmp_path_factory, words):
    file = tmp_path_factory.getbasetemp() / "any-resolv.conf"
    file.write_text(" ".join(words))
    try:
        servers = local_servers(str(file))
    except ResolveError:
        return
    assert servers and {host for host, _ in servers} <= {"127.0.0.1", "::1"}
