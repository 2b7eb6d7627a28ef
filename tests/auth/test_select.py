"""select.py: which mechanism is chosen, and why none is."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.auth import Credentials
from smtp_async.auth.select import RANKING, select
from smtp_async.errors import AuthenticationUnavailable, InvalidArgument

CANARY = "c4n4ry-p4ssw0rd"
ANN = Credentials(username="ann", password=CANARY)
CLEAR = Credentials(username="ann", password=CANARY, allow_cleartext=True)
ALL = ("CRAM-MD5", "LOGIN", "PLAIN")


def named(*mechanisms, **kwargs):
    return Credentials(username="ann", password=CANARY, mechanisms=mechanisms, **kwargs)


class TestSelect:
    @pytest.mark.parametrize(
        ("offered", "secure", "credentials", "chosen"),
        [
            (ALL, True, ANN, "PLAIN"),
            (("LOGIN", "CRAM-MD5"), True, ANN, "LOGIN"),
            (("plain",), True, ANN, "PLAIN"),
            (("XOAUTH2", "NTLM", "LOGIN"), True, ANN, "LOGIN"),
            # In clear, asked for by name: what does not show the password first.
            (ALL, False, CLEAR, "CRAM-MD5"),
            (("LOGIN", "PLAIN"), False, CLEAR, "PLAIN"),
            (("LOGIN",), False, CLEAR, "LOGIN"),
            # allow_cleartext changes nothing over TLS.
            (ALL, True, CLEAR, "PLAIN"),
            # By name, in the order given.
            (ALL, True, named("CRAM-MD5"), "CRAM-MD5"),
            (ALL, True, named("LOGIN", "PLAIN"), "LOGIN"),
            (ALL, True, named("SCRAM-SHA-256", "login"), "LOGIN"),
            (("PLAIN",), True, named("LOGIN", "PLAIN"), "PLAIN"),
            (ALL, False, named("PLAIN", allow_cleartext=True), "PLAIN"),
            # Only PLAIN carries an authzid.
            (ALL, False, Credentials(username="a", password="p", authzid="b", allow_cleartext=True), "PLAIN"),
        ],
    )
    def test_choice(self, offered, secure, credentials, chosen):
        mechanism = select(offered, credentials, secure=secure)
        assert mechanism.name == chosen
        assert not mechanism.complete

    @pytest.mark.parametrize(
        ("offered", "secure", "credentials", "words"),
        [
            ((), True, ANN, "offers no authentication"),
            (("XOAUTH2",), True, ANN, "the server offers XOAUTH2; this side knows PLAIN, LOGIN, CRAM-MD5"),
            (("PLAIN",), False, ANN, "PLAIN is offered, but .* not protected .* show the password"),
            (("CRAM-MD5",), False, ANN, "CRAM-MD5 is offered, but .* let others guess the password"),
            (("CRAM-MD5",), True, ANN, r'used only when named.*mechanisms=\("CRAM-MD5",\)'),
            (("CRAM-MD5",), True, CLEAR, "used only when named"),
            (("PLAIN",), True, named("LOGIN"), "only LOGIN may be used; LOGIN is not offered"),
            (("PLAIN",), True, named("SCRAM-SHA-256"), "only SCRAM-SHA-256 may be used"),
            (
                ("LOGIN",),
                True,
                Credentials(username="a", password="p", authzid="b"),
                "cannot carry an authzid",
            ),
        ],
    )
    def test_none(self, offered, secure, credentials, words):
        with pytest.raises(AuthenticationUnavailable, match=words) as caught:
            select(offered, credentials, secure=secure)
        assert caught.value.code == 20030
        assert caught.value.stage == "AUTH"
        assert CANARY not in str(caught.value)

    @pytest.mark.parametrize(
        "credentials", [Credentials(), Credentials(username="a"), Credentials(password="p")]
    )
    def test_half_credentials(self, credentials):
        with pytest.raises(InvalidArgument):
            select(ALL, credentials, secure=True)

    @pytest.mark.parametrize("size", range(4))
    def test_nothing_in_clear_unless_asked(self, size):
        for offered in itertools.permutations(ALL, size):
            for mechanisms in itertools.permutations(ALL, size):
                with pytest.raises(AuthenticationUnavailable):
                    select(offered, named(*mechanisms), secure=False)

    @given(st.lists(st.sampled_from([*ALL, "NTLM", "GSSAPI"])), st.booleans())
    def test_cram_never_before_plain_over_tls(self, offered, allow):
        credentials = Credentials(username="a", password="p", allow_cleartext=allow)
        try:
            assert select(offered, credentials, secure=True).name in ("PLAIN", "LOGIN")
        except AuthenticationUnavailable:
            assert not {"PLAIN", "LOGIN"} & set(offered)

    def test_the_ranking_makes_what_it_names(self):
        assert [place.name for place in RANKING] == ["PLAIN", "LOGIN", "CRAM-MD5"]
        for place in RANKING:
            assert place.make(ANN).name == place.name
            assert select([place.name], named(place.name), secure=True).name == place.name
