"""select.py: which mechanism is chosen, why none is, what may follow a refusal, and what is a downgrade."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.auth import Credentials, Mechanism, Strength, Token
from smtp_async.auth.cram import CramMD5
from smtp_async.auth.gssapi import GSSAPI
from smtp_async.auth.mechanism import Exposure, Needs, Peer
from smtp_async.auth.oauth import OAuthBearer, XOAuth2
from smtp_async.auth.plain import Login, Plain
from smtp_async.auth.scram import ScramSHA1, ScramSHA256, ScramSHA512, ScramSHA512Plus
from smtp_async.auth.select import RANKING, better_before, candidates, demand_sensible, may_follow, select
from smtp_async.errors import AuthenticationUnavailable, FeatureUnavailable, InvalidArgument

CANARY = "c4n4ry-p4ssw0rd"
ANN = Credentials(username="ann", password=CANARY)
CLEAR = Credentials(username="ann", password=CANARY, allow_cleartext=True)
TOKEN = Credentials(username="ann", token=CANARY)
BOTH = Credentials(username="ann", token=CANARY, password=CANARY)
CERTIFICATE = Credentials(username="ann")
ALL = tuple(place.name for place in RANKING)
OLD = ("CRAM-MD5", "LOGIN", "PLAIN")
BINDINGS = {"tls-exporter": b"x"}


def named(*mechanisms, **kwargs):
    return Credentials(username="ann", password=CANARY, mechanisms=mechanisms, **kwargs)


def peer_of(*offered, secure=True, **more):
    return Peer(offered=frozenset(offered), secure=secure, **more)


def chosen(credentials, *offered, secure=True, **more):
    return select(credentials, peer_of(*offered, secure=secure, **more)).name


class TestSelect:
    @pytest.mark.parametrize(
        ("offered", "credentials", "best"),
        [
            (OLD, ANN, "PLAIN"),
            (("LOGIN", "CRAM-MD5"), ANN, "LOGIN"),
            (("XOAUTH2", "NTLM", "LOGIN"), ANN, "LOGIN"),
            (("PLAIN", "SCRAM-SHA-1"), ANN, "SCRAM-SHA-1"),
            (("SCRAM-SHA-256", "PLAIN", "SCRAM-SHA-1"), ANN, "SCRAM-SHA-256"),
            (ALL, ANN, "SCRAM-SHA-512"),
            # allow_cleartext changes nothing over TLS.
            (OLD, CLEAR, "PLAIN"),
            # By name, in the order given.
            (ALL, named("CRAM-MD5"), "CRAM-MD5"),
            (ALL, named("LOGIN", "PLAIN"), "LOGIN"),
            (ALL, named("DIGEST-MD5", "PLAIN"), "DIGEST-MD5"),
            (ALL, named("anonymous"), "ANONYMOUS"),
            (("LOGIN",), named("SCRAM-SHA-256", "login"), "LOGIN"),
            (("PLAIN",), named("LOGIN", "PLAIN"), "PLAIN"),
            # LOGIN carries no authzid.
            (("LOGIN", "PLAIN"), replace(ANN, authzid="b"), "PLAIN"),
            (
                ("LOGIN", "CRAM-MD5", "DIGEST-MD5"),
                named("LOGIN", "CRAM-MD5", "DIGEST-MD5", authzid="b"),
                "DIGEST-MD5",
            ),
            # A token.
            (ALL, TOKEN, "OAUTHBEARER"),
            (("XOAUTH2", "PLAIN"), TOKEN, "XOAUTH2"),
            (ALL, BOTH, "OAUTHBEARER"),
            (("PLAIN",), BOTH, "PLAIN"),
            (ALL, replace(TOKEN, mechanisms=("XOAUTH2",)), "XOAUTH2"),
            (("OAUTHBEARER", "XOAUTH2"), replace(TOKEN, username=""), "OAUTHBEARER"),
        ],
    )
    def test_choice_over_tls(self, offered, credentials, best):
        mechanism = select(credentials, peer_of(*offered))
        assert mechanism.name == best
        assert not mechanism.complete

    @pytest.mark.parametrize(
        ("offered", "credentials", "best"),
        [
            # What does not show the password first; what is weak before what shows it.
            (OLD, CLEAR, "CRAM-MD5"),
            (("LOGIN", "PLAIN"), CLEAR, "PLAIN"),
            (("LOGIN",), CLEAR, "LOGIN"),
            (ALL, CLEAR, "SCRAM-SHA-512"),
            (("PLAIN", "NTLM", "DIGEST-MD5"), CLEAR, "DIGEST-MD5"),
            (OLD, named("PLAIN", allow_cleartext=True), "PLAIN"),
            (OLD, replace(CLEAR, authzid="b"), "PLAIN"),
            (ALL, replace(TOKEN, allow_cleartext=True), "OAUTHBEARER"),
            # These show nothing.
            (ALL, named("ANONYMOUS"), "ANONYMOUS"),
        ],
    )
    def test_choice_in_clear(self, offered, credentials, best):
        assert chosen(credentials, *offered, secure=False) == best

    def test_a_ticket_shows_nothing_in_clear(self, monkeypatch):
        monkeypatch.setattr(GSSAPI, "missing", classmethod(lambda cls: ""))
        assert chosen(named("GSSAPI"), *ALL, secure=False) == "GSSAPI"

    def test_a_certificate(self):
        shown = {"certificate_shown": True}
        assert chosen(CERTIFICATE, *ALL, **shown) == "EXTERNAL"
        assert chosen(Credentials(), *ALL, **shown) == "EXTERNAL"
        assert chosen(ANN, *ALL, **shown) == "SCRAM-SHA-512"
        assert chosen(TOKEN, *ALL, **shown) == "OAUTHBEARER"
        assert chosen(named("EXTERNAL"), *ALL, **shown) == "EXTERNAL"
        with pytest.raises(InvalidArgument, match="a client certificate"):
            chosen(CERTIFICATE, *ALL)
        with pytest.raises(InvalidArgument, match="a client certificate"):
            chosen(named("EXTERNAL"), *ALL)

    @pytest.mark.parametrize(
        ("offered", "secure", "credentials", "words"),
        [
            ((), True, ANN, "offers no authentication"),
            (("XOAUTH2",), True, ANN, "this client supports .*PLAIN, LOGIN.*; XOAUTH2 .* needs a token"),
            (("GS2-KRB5",), True, ANN, "the server offers GS2-KRB5; this client supports [^;]*$"),
            (("PLAIN",), False, ANN, "PLAIN is offered, but .* not protected .* show the password"),
            (("XOAUTH2",), False, TOKEN, "XOAUTH2 is offered, but .* not protected .* show the password or token"),
            (("CRAM-MD5",), False, ANN, "CRAM-MD5 is offered, but .* let others guess the password"),
            (("SCRAM-SHA-256",), False, ANN, "let others guess the password"),
            (("CRAM-MD5",), True, ANN, r'used only when named.*mechanisms=\("CRAM-MD5",\)'),
            (("CRAM-MD5",), True, CLEAR, "used only when named"),
            (("NTLM",), True, ANN, "relayed"),
            (("PLAIN",), True, named("LOGIN"), "only LOGIN may be used; LOGIN is not offered"),
            (("PLAIN",), True, named("SCRAM-SHA-256"), "only SCRAM-SHA-256 may be used"),
            (("LOGIN",), True, replace(ANN, authzid="b"), "cannot carry an authzid"),
            (("SCRAM-SHA-1-PLUS",), True, ANN, "PLUS is offered, but this connection has no channel binding"),
            (("XOAUTH2",), True, Credentials(token="t"), "it needs a user name"),
        ],
    )  # fmt: skip
    def test_none(self, offered, secure, credentials, words):
        with pytest.raises(AuthenticationUnavailable, match=words) as caught:
            select(credentials, peer_of(*offered, secure=secure))
        assert caught.value.code == 20030
        assert caught.value.stage == "AUTH"
        assert CANARY not in str(caught.value)

    @pytest.mark.parametrize(
        "credentials",
        [
            Credentials(),
            Credentials(username="a"),
            Credentials(password="p"),
            Credentials(token=""),
            Credentials(username="a", mechanisms=["PLAIN", "XOAUTH2"]),
            Credentials(token="t", mechanisms=["PLAIN"]),
        ],
    )
    def test_half_credentials(self, credentials):
        with pytest.raises(InvalidArgument, match="not enough"):
            select(credentials, peer_of(*ALL))

    @pytest.mark.parametrize("size", range(4))
    def test_nothing_in_clear_unless_asked(self, size):
        for offered in itertools.permutations(OLD, size):
            for mechanisms in itertools.permutations(OLD, size):
                with pytest.raises(AuthenticationUnavailable):
                    select(named(*mechanisms), peer_of(*offered, secure=False))

    @given(st.lists(st.sampled_from([*ALL, "X-ODD"])), st.booleans())
    def test_only_what_is_sound_over_tls(self, offered, allow):
        credentials = Credentials(username="a", password="p", allow_cleartext=allow)
        sound = [name for name in ALL if name.startswith("SCRAM") and not name.endswith("PLUS")]
        sound += ["PLAIN", "LOGIN"]
        try:
            name = chosen(credentials, *offered)
        except AuthenticationUnavailable:
            assert not set(sound) & set(offered)
        else:
            assert name == next(one for one in sound if one in offered)

    @given(st.lists(st.sampled_from(ALL)), st.booleans(), st.booleans())
    def test_nothing_is_shown_in_clear(self, offered, token, password):
        credentials = Credentials(
            username="ann", password="p" if password else "", token="t" if token else None, mechanisms=ALL
        )
        try:
            found = candidates(credentials, peer_of(*offered, secure=False))
        except (AuthenticationUnavailable, FeatureUnavailable, InvalidArgument):
            return
        assert {one.exposes for one in found} <= {Exposure.NOTHING}


class TestStrength:
    @pytest.mark.parametrize(
        ("least", "best"),
        [
            (Strength.NONE, ["SCRAM-SHA-512", "SCRAM-SHA-256-PLUS", "PLAIN", "LOGIN"]),
            (Strength.REVEALED, ["SCRAM-SHA-512", "SCRAM-SHA-256-PLUS", "PLAIN", "LOGIN"]),
            (Strength.PROVED, ["SCRAM-SHA-512", "SCRAM-SHA-256-PLUS"]),
            (Strength.MUTUAL, ["SCRAM-SHA-512", "SCRAM-SHA-256-PLUS"]),
            (Strength.BOUND, ["SCRAM-SHA-256-PLUS"]),
        ],
    )
    def test_the_least(self, least, best):
        offer = peer_of(*OLD, "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512", bindings=BINDINGS)
        assert [one.name for one in candidates(replace(ANN, minimum_strength=least), offer)] == best

    def test_the_reason(self):
        with pytest.raises(
            AuthenticationUnavailable, match=r"PLAIN is offered, but protects less \(REVEALED\)"
        ):
            chosen(replace(ANN, minimum_strength=Strength.MUTUAL), "PLAIN")


class TestNames:
    @pytest.mark.parametrize("name", ["APOP", "apop"])
    def test_apop_is_none(self, name):
        with pytest.raises(InvalidArgument, match="POP3"):
            demand_sensible(named(name))

    @pytest.mark.parametrize(
        "name", ["SCRAM-SHA-266", "", "PLAIN LOGIN", int, object(), Mechanism(ANN) if False else 7]
    )
    def test_a_name_that_is_none(self, name):
        for call in (demand_sensible, lambda one: candidates(one, peer_of(*ALL))):
            with pytest.raises(InvalidArgument, match="neither the name of a mechanism nor"):
                call(named(name))

    def test_known_ones(self):
        demand_sensible(named(*ALL, *(name.lower() for name in ALL), Plain))
        assert candidates(named("plain"), peer_of(*ALL)) == candidates(named(Plain), peer_of(*ALL)) == [Plain]

    def test_a_provider_is_asked_later(self):
        async def provider() -> Token:
            return Token("t")

        assert candidates(Credentials(username="a", token=provider), peer_of(*ALL)) == [OAuthBearer, XOAuth2]


class Own(Mechanism):
    """A mechanism of an application's."""

    name = "X-OWN"
    needs = Needs.NOTHING
    exposes = Exposure.NOTHING

    def initial_response(self):
        return b"me"

    def respond(self, challenge):
        raise NotImplementedError

    def secrets(self):
        return ()


class TestOwn:
    def test_it_is_used_where_it_is_offered(self):
        assert isinstance(select(named(Own, "PLAIN"), peer_of("X-OWN", "PLAIN")), Own)
        assert chosen(named(Own, "PLAIN"), "PLAIN") == "PLAIN"
        assert chosen(named("PLAIN", Own), "PLAIN", "X-OWN") == "PLAIN"

    def test_by_default_it_counts_as_one_that_shows_the_password(self):
        class Careless(Own):
            exposes = Mechanism.exposes
            needs = Mechanism.needs

        with pytest.raises(AuthenticationUnavailable, match="X-OWN .* show the password"):
            chosen(named(Careless), "X-OWN", secure=False)
        with pytest.raises(AuthenticationUnavailable, match="X-OWN .* protects less"):
            chosen(named(Careless, minimum_strength=Strength.PROVED), "X-OWN")

    def test_the_names_in_the_explanation(self):
        with pytest.raises(AuthenticationUnavailable, match="only X-OWN may be used"):
            chosen(named(Own), "PLAIN")


class TestMissingExtras:
    @pytest.fixture(autouse=True)
    def nothing_is_installed(self, monkeypatch):
        for module in ("scram", "ntlm", "gssapi"):
            monkeypatch.setattr(f"smtp_async.auth.{module}.find_spec", lambda name: None)

    def test_skipped_in_the_automatic_choice(self):
        assert chosen(ANN, *ALL) == "PLAIN"
        with pytest.raises(
            AuthenticationUnavailable, match=r"SCRAM-SHA-1 is offered, but needs smtp-async\[sasl\]"
        ):
            chosen(ANN, "SCRAM-SHA-1")

    @pytest.mark.parametrize(
        ("name", "extra"), [("SCRAM-SHA-256", "sasl"), ("NTLM", "sasl"), ("GSSAPI", "kerberos")]
    )
    def test_named_where_they_are_asked_for(self, name, extra):
        with pytest.raises(FeatureUnavailable) as caught:
            chosen(named(name, "PLAIN"), *ALL)
        assert caught.value.needs == f"smtp-async[{extra}]"
        assert name in str(caught.value)
        # Not where the server would not take it anyhow.
        assert chosen(named(name, "PLAIN"), "PLAIN") == "PLAIN"


# --- after a refusal -----------------------------------------------------------------------------------------


def tried(mechanism, *, complete=False):
    one = mechanism(TOKEN if mechanism.needs is Needs.TOKEN else ANN)
    one.complete = complete
    return one


class TestFollowing:
    @pytest.mark.parametrize("code", [504, 534, 538])
    def test_where_the_mechanism_was_refused(self, code):
        assert may_follow(code, tried(ScramSHA256), Plain, secure=True)
        assert may_follow(code, tried(ScramSHA512), ScramSHA256, secure=True)

    @pytest.mark.parametrize("code", [535, 454, 432, 421, 500, 501, 503, 530, 550, 554])
    def test_never_where_the_account_was(self, code):
        assert not may_follow(code, tried(ScramSHA256), Plain, secure=True)

    def test_the_password_is_shown_once(self):
        assert not may_follow(504, tried(Plain, complete=True), Login, secure=True)
        assert not may_follow(504, tried(OAuthBearer, complete=True), XOAuth2, secure=True)
        # Its refusal was explained, but the token was sent.
        explained = tried(OAuthBearer)
        explained.initial_response()
        explained.respond(b"{}")
        assert not explained.complete
        assert not may_follow(504, explained, XOAuth2, secure=True)
        # AUTH PLAIN was refused before it had carried anything.
        assert may_follow(504, tried(Plain), Login, secure=True)
        assert may_follow(504, tried(Plain, complete=True), CramMD5, secure=True)

    def test_in_clear_nothing_follows_that_shows_more(self):
        """Somebody on the way may have refused."""
        assert not may_follow(504, tried(CramMD5), Plain, secure=False)
        assert may_follow(504, tried(ScramSHA256), ScramSHA1, secure=False)
        assert may_follow(504, tried(Plain), Login, secure=False)


class TestDowngrade:
    def better(self, mechanism, *remembered, credentials=ANN, offered=(), **more):
        return better_before(mechanism, credentials, peer_of(mechanism.name, *offered, **more), remembered)

    def test_what_is_one(self):
        assert self.better(Plain, "SCRAM-SHA-256", "PLAIN") is ScramSHA256
        assert self.better(ScramSHA1, "SCRAM-SHA-512", "SCRAM-SHA-256") is ScramSHA512
        assert self.better(ScramSHA512, "SCRAM-SHA-512-PLUS", bindings=BINDINGS) is ScramSHA512Plus
        # Refused in place of what is still offered.
        assert self.better(Plain, offered=["SCRAM-SHA-1"]) is ScramSHA1

    def test_what_is_none(self):
        assert self.better(Plain) is None
        assert self.better(ScramSHA512, "PLAIN", "SCRAM-SHA-1") is None
        # The password is shown by both.
        assert self.better(Login, "PLAIN") is None
        # This side could not use it, or does not want to.
        assert self.better(ScramSHA512, "SCRAM-SHA-512-PLUS") is None
        assert self.better(Plain, "SCRAM-SHA-256", credentials=named("PLAIN")) is None
        assert self.better(Plain, "SCRAM-SHA-256", credentials=named("PLAIN", "SCRAM-SHA-256")) is None
        assert self.better(XOAuth2, "OAUTHBEARER", credentials=TOKEN) is None
        assert self.better(Plain, "GSSAPI", "DIGEST-MD5") is None


# --- the table -----------------------------------------------------------------------------------------------


class TestRanking:
    def test_the_order_is_this(self):
        assert ALL == (
            "OAUTHBEARER",
            "XOAUTH2",
            "SCRAM-SHA-512-PLUS",
            "SCRAM-SHA-512",
            "SCRAM-SHA-256-PLUS",
            "SCRAM-SHA-256",
            "SCRAM-SHA-1-PLUS",
            "SCRAM-SHA-1",
            "PLAIN",
            "LOGIN",
            "EXTERNAL",
            "GSSAPI",
            "DIGEST-MD5",
            "CRAM-MD5",
            "NTLM",
            "ANONYMOUS",
        )

    def test_every_place_has_its_reason(self):
        for place in RANKING:
            assert place.reason
            assert place.mechanism.name == place.name
            assert place.mechanism(ANN).name == place.name

    def test_what_is_used_without_being_named(self):
        assert [place.name for place in RANKING if not place.only_by_name] == [*ALL[:10]]
