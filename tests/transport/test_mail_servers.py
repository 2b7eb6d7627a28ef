"""The mail servers of a domain."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidHost, MissingHost, ResolveError
from smtp_async.transport.mail_servers import (
    SubmissionServer,
    by_preference,
    by_weight,
    resolve_mx,
    resolve_submission,
)
from smtp_async.transport.records import MX, SRV
from smtp_async.transport.resolve import DNSOptions, DNSResolver

hosts = st.sampled_from("abcdef")
exchangers = st.lists(st.builds(MX, st.integers(0, 3), hosts), max_size=10)
services = st.lists(st.builds(SRV, st.integers(0, 2), st.integers(0, 3), st.just(25), hosts), max_size=8)


@pytest.fixture
def options(dns):
    return DNSOptions(servers=(dns.server,))


class TestMX:
    def test_by_preference_and_equal_ones_shuffled(self, run, options):
        orders = {run(resolve_mx("lab.test", resolver=options)) for _ in range(30)}
        assert orders == {
            ("mail.lab.test", "mail2.lab.test", "mail3.lab.test"),
            ("mail.lab.test", "mail3.lab.test", "mail2.lab.test"),
        }

    def test_a_domain_that_takes_no_mail(self, run, options):
        with pytest.raises(ResolveError, match=r"takes no mail.*RFC 7505") as caught:
            run(resolve_mx("null.lab.test", resolver=options))
        assert caught.value.code == 11004 and not caught.value.temporary

    def test_without_mx_records_the_domain_itself(self, run, options):
        assert run(resolve_mx("nomx.lab.test", resolver=options)) == ("nomx.lab.test",)

    def test_behind_an_alias(self, run, options):
        """RFC 5321 section 5.1: the MX records of the name that the alias leads to; here that has none."""
        assert run(resolve_mx("alias.lab.test", resolver=options)) == ("alias.lab.test",)

    def test_international(self, run, options):
        assert run(resolve_mx("Bücher.lab.test", resolver=options)) == ("mail.lab.test",)

    def test_no_such_domain(self, run, options):
        with pytest.raises(ResolveError) as caught:
            run(resolve_mx("nowhere.lab.test", resolver=options))
        assert caught.value.code == 11001

    def test_a_failure_is_not_taken_for_a_domain_without_records(self, run, options):
        with pytest.raises(ResolveError) as caught:
            run(resolve_mx("bogus.test", resolver=options))
        assert caught.value.code == 11002

    def test_secure(self, run, dns):
        secure = DNSOptions(servers=(dns.server,), secure=True)
        assert run(resolve_mx("lab.test", resolver=secure))[0] == "mail.lab.test"
        for domain in ("plain.test", "bogus.test"):
            with pytest.raises(ResolveError) as caught:
                run(resolve_mx(domain, resolver=secure))
            assert caught.value.code == 11003

    @pytest.mark.parametrize("literal", ["[192.0.2.1]", "192.0.2.1"])
    def test_an_address_stands_for_itself(self, run, literal):
        assert run(resolve_mx(literal)) == ("192.0.2.1",)

    @pytest.mark.parametrize(
        ("domain", "error"), [("", MissingHost), ("a b", InvalidHost), ("a\r\nb", InvalidHost)]
    )
    def test_what_is_no_domain(self, run, domain, error):
        with pytest.raises(error):
            run(resolve_mx(domain))

    def test_with_a_resolver_of_ones_own(self, run, options):
        async def scenario():
            resolver = DNSResolver(options)
            for _ in range(2):
                assert (await resolve_mx("inner.lab.test", resolver=resolver)) == ("mail.lab.test",)
            resolver.close()

        run(scenario())

    @given(exchangers, st.randoms())
    def test_the_order(self, records, rng):
        ranked = by_preference(records, rng)
        assert [one.preference for one in ranked] == sorted(one.preference for one in ranked)
        assert sorted({one.host for one in records}) == sorted(one.host for one in ranked)
        for one in ranked:
            assert one.preference == min(other.preference for other in records if other.host == one.host)


class TestSubmission:
    def test_implicit_tls_first(self, run, options):
        assert run(resolve_submission("lab.test", resolver=options)) == (
            SubmissionServer("mail.lab.test", 2465, True),
            SubmissionServer("mail.lab.test", 2587, False),
        )

    def test_by_priority_then_weight(self, run, options):
        found = [run(resolve_submission("weights.lab.test", resolver=options)) for _ in range(40)]
        assert {servers[2].host for servers in found} == {"c.weights.lab.test"}
        assert {servers[0].host for servers in found} == {"a.weights.lab.test", "b.weights.lab.test"}

    @pytest.mark.parametrize("domain", ["none.lab.test", "mail.lab.test", "nowhere.lab.test"])
    def test_not_offered(self, run, options, domain):
        assert run(resolve_submission(domain, resolver=options)) == ()

    def test_a_failure_is_an_error(self, run, options):
        with pytest.raises(ResolveError) as caught:
            run(resolve_submission("bogus.test", resolver=options))
        assert caught.value.code == 11002

    @given(services, st.randoms())
    def test_the_order(self, records, rng):
        ranked = list(by_weight(records, rng))
        assert sorted(ranked) == sorted(set(records))
        assert [one.priority for one in ranked] == sorted(one.priority for one in ranked)

    def test_the_weights_are_chances(self):
        rng = random.Random(1)
        records = [SRV(0, 1, 25, "a"), SRV(0, 9, 25, "b"), SRV(0, 0, 25, "c")]
        first = [next(iter(by_weight(records, rng))).host for _ in range(2000)]
        assert 0.85 < first.count("b") / 2000 < 0.93 and 0 < first.count("c") < 60
