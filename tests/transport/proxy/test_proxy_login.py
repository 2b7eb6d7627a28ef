"""proxy_login.py: what each CONNECT carries, and what a 407 changes."""

import base64

import pytest

from smtp_async import ProxyAuth, ProxyOptions, ProxyResponse, Secret
from smtp_async.errors import FeatureUnavailable, ProtocolViolation, ProxyError
from smtp_async.transport.proxy.proxy_login import NTLMFactory, ProxyLogin

DIGEST = 'Digest realm="lab", nonce="one", qop="auth", algorithm=SHA-256'
BASIC = 'Basic realm="lab"'
ACCOUNT = "Basic " + base64.b64encode(b"ann:secret").decode()


class Exchange:
    """NTLM, as far as its messages have an order."""

    def initial_response(self) -> bytes:
        return b"negotiate"

    def respond(self, challenge: bytes) -> bytes:
        if challenge == b"bad":
            raise ProtocolViolation("malformed")
        return b"authenticate " + challenge


def factory(username: str, password: Secret, host: str) -> Exchange:
    assert (username, password, host) == ("ann", Secret("secret"), "p.example")
    return Exchange()


def login(auth: ProxyAuth = ProxyAuth.AUTO, ntlm: NTLMFactory | None = factory, url: str = "") -> ProxyLogin:
    options = ProxyOptions(url=url or "http://ann:secret@p.example", auth=auth)
    return ProxyLogin(options, "mail.example:25", ntlm)


def asks(*challenges: str) -> ProxyResponse:
    return ProxyResponse(407, "", tuple(("Proxy-Authenticate", one) for one in challenges))


def sent(login: ProxyLogin) -> str:
    value = login.authorization()
    return "" if value is None else value.reveal()


def ntlm(message: bytes) -> str:
    return "NTLM " + base64.b64encode(message).decode()


class TestChoice:
    def test_nothing_is_sent_unasked(self) -> None:
        assert sent(login()) == ""

    @pytest.mark.parametrize(
        "offered, begins",
        [
            ((BASIC,), ACCOUNT),
            ((BASIC, "NTLM", DIGEST), "Digest "),
            ((BASIC, "NTLM"), ntlm(b"negotiate")),
            ((BASIC, 'Digest nonce=x, qop="auth-int"'), ACCOUNT),
            (("Negotiate", BASIC), ACCOUNT),
        ],
    )
    def test_the_safest_that_is_offered(self, offered: tuple[str, ...], begins: str) -> None:
        one = login()
        one.challenged(asks(*offered))
        assert sent(one).startswith(begins)

    def test_the_strongest_digest(self) -> None:
        one = login()
        one.challenged(asks('Digest nonce="weak", algorithm=MD5', DIGEST))
        assert 'nonce="one"' in sent(one)

    def test_basic_by_name_is_sent_at_once(self) -> None:
        assert sent(login(ProxyAuth.BASIC)) == ACCOUNT

    def test_without_the_extra_ntlm_is_not_chosen(self) -> None:
        one = login(ntlm=None)
        one.challenged(asks("NTLM", BASIC))
        assert sent(one) == ACCOUNT
        with pytest.raises(ProxyError, match=r"smtp-async\[sasl\]"):
            login(ntlm=None).challenged(asks("NTLM"))
        with pytest.raises(FeatureUnavailable, match="needs an extra"):
            login(ProxyAuth.NTLM, ntlm=None).authorization()

    def test_a_pinned_scheme_is_the_only_one(self) -> None:
        with pytest.raises(ProxyError, match="offers basic, but Digest is set"):
            login(ProxyAuth.DIGEST).challenged(asks(BASIC))

    def test_nothing_that_is_known(self) -> None:
        with pytest.raises(ProxyError, match="offers negotiate, but this library speaks"):
            login().challenged(asks("Negotiate"))

    def test_a_colon_in_the_user_name_is_not_for_basic(self) -> None:
        with pytest.raises(ProxyError):
            login(url="http://a%3Ab:secret@p.example").challenged(asks(BASIC))

    @pytest.mark.parametrize("options", [{"url": "http://p.example"}, {"auth": ProxyAuth.NONE}])
    def test_without_an_account_it_says_what_to_set(self, options: dict[str, object]) -> None:
        with pytest.raises(ProxyError, match="set username and password"):
            login(**options).challenged(asks(BASIC))  # type: ignore[arg-type]

    def test_a_header_of_the_application_is_all_that_is_sent(self) -> None:
        options = ProxyOptions(url="http://ann:secret@p", headers={"Proxy-Authorization": "Bearer x"})
        one = ProxyLogin(options, "mail.example:25", factory)
        assert one.authorization() is None
        with pytest.raises(ProxyError):
            one.challenged(asks(BASIC))


class TestRefusal:
    @pytest.mark.parametrize("challenge", [BASIC, DIGEST])
    def test_a_second_407_ends_it(self, challenge: str) -> None:
        one = login()
        one.challenged(asks(challenge))
        one.authorization()
        with pytest.raises(ProxyError, match="refused the user name and password"):
            # Even where another scheme is offered now: no second one gets the password.
            one.challenged(asks(challenge, BASIC))

    def test_a_stale_nonce_is_believed_once(self) -> None:
        one = login()
        one.challenged(asks(DIGEST))
        one.authorization()
        one.challenged(asks('Digest nonce="two", stale=true'))
        assert 'nonce="two"' in sent(one)
        with pytest.raises(ProxyError):
            one.challenged(asks('Digest nonce="three", stale=true'))


class TestNTLM:
    def test_three_messages_on_one_connection(self) -> None:
        one = login(ProxyAuth.NTLM)
        assert not one.same_connection
        assert sent(one) == ntlm(b"negotiate")
        assert one.same_connection
        one.challenged(asks(ntlm(b"challenge")))
        assert sent(one) == ntlm(b"authenticate challenge")
        assert not one.same_connection
        with pytest.raises(ProxyError, match="refused the user name and password"):
            one.challenged(asks("NTLM"))

    @pytest.mark.parametrize("challenge", ["NTLM", "NTLM ?", BASIC, "NTLM a"])
    def test_a_proxy_that_does_not_go_on(self, challenge: str) -> None:
        one = login(ProxyAuth.NTLM)
        one.authorization()
        with pytest.raises(ProxyError, match="did not go on with NTLM"):
            one.challenged(asks(challenge))

    def test_a_challenge_that_cannot_be_answered(self) -> None:
        one = login(ProxyAuth.NTLM)
        one.authorization()
        one.challenged(asks(ntlm(b"bad")))
        with pytest.raises(ProxyError, match="cannot be answered: malformed"):
            one.authorization()


def test_what_the_proxy_repeats_is_masked() -> None:
    one = login(ProxyAuth.BASIC)
    one.authorization()
    text = f"you sent {ACCOUNT}, that is secret".encode()
    assert b"secret" not in one.mask(text)
    assert ACCOUNT.split()[1].encode() not in one.mask(text)
