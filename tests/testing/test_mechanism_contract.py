"""mechanism_contract.py: an application's own mechanism passes, those of the library do, and faulty ones fail."""

from typing import Any

import pytest

from smtp_async import Credentials
from smtp_async.auth.cram import CramMD5
from smtp_async.auth.digest import DigestMD5
from smtp_async.auth.external import Anonymous
from smtp_async.auth.mechanism import Exposure, Mechanism, Needs, encoded
from smtp_async.auth.oauth import OAuthBearer, XOAuth2
from smtp_async.auth.plain import Login, Plain
from smtp_async.auth.scram import ScramSHA256
from smtp_async.errors import ProtocolViolation
from smtp_async.testing import MechanismContract, mechanisms
from tests.auth import servers

ANN = {"ann": "s3cret-s3cret"}


def account(mechanism: type[Mechanism]) -> Credentials:
    text = ANN["ann"]
    if mechanism.needs is Needs.TOKEN:
        return Credentials(username="ann", token=text, mechanisms=[mechanism])
    return Credentials(username="ann", password=text, mechanisms=[mechanism])


class Reversed(Mechanism):
    """Sends the password backwards; an application's own."""

    name = "X-REVERSED"
    needs = Needs.PASSWORD

    def initial_response(self) -> None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        if self.complete or challenge != b"who?":
            raise ProtocolViolation("X-REVERSED has one challenge", stage="AUTH")
        self.complete = True
        return self._message()

    def secrets(self) -> tuple[bytes, ...]:
        return (self._message(),) if self.complete else ()

    def _message(self) -> bytes:
        return encoded(self._credentials.password, "password")[::-1]


def reversed_server(users: Any, initial: bytes | None) -> Any:
    answer = yield b"who?"
    return next((user for user, password in users.items() if password.encode()[::-1] == answer), None)


class TestReversed(MechanismContract):
    mechanism = Reversed
    credentials = account(Reversed)
    users = ANN
    server = staticmethod(reversed_server)


class TestPlain(MechanismContract):
    mechanism = Plain
    credentials = account(Plain)
    users = ANN
    server = staticmethod(mechanisms.plain)


class TestLogin(MechanismContract):
    mechanism = Login
    credentials = account(Login)
    users = ANN
    server = staticmethod(mechanisms.login)


class TestCramMD5(MechanismContract):
    mechanism = CramMD5
    credentials = account(CramMD5)
    users = ANN
    server = staticmethod(mechanisms.cram_md5)


class TestDigestMD5(MechanismContract):
    mechanism = DigestMD5
    credentials = account(DigestMD5)
    users = ANN
    server = staticmethod(servers.digest_md5)


class TestScram(MechanismContract):
    mechanism = ScramSHA256
    credentials = account(ScramSHA256)
    users = ANN
    server = staticmethod(servers.scram("SCRAM-SHA-256"))


class TestXOAuth2(MechanismContract):
    mechanism = XOAuth2
    credentials = account(XOAuth2)
    users = ANN
    server = staticmethod(servers.xoauth2())


class TestOAuthBearer(MechanismContract):
    mechanism = OAuthBearer
    credentials = account(OAuthBearer)
    users = ANN
    server = staticmethod(servers.oauthbearer())


class TestAnonymous(MechanismContract):
    mechanism = Anonymous
    credentials = account(Anonymous)
    users = ANN
    server = staticmethod(servers.anonymous)


# --- faulty ones -----------------------------------------------------------------------------------------------


class Talkative(Reversed):
    """Keeps its password readable."""

    def respond(self, challenge: bytes) -> bytes:
        self.password = self._credentials.password.reveal()
        return super().respond(challenge)


class Endless(Reversed):
    """Answers for ever."""

    def respond(self, challenge: bytes) -> bytes:
        self.complete = True
        return self._message()


class Early(Reversed):
    """Is complete from the beginning."""

    complete = True

    def respond(self, challenge: bytes) -> bytes:
        return self._message()


class Crashing(Reversed):
    """Takes challenges for text."""

    def respond(self, challenge: bytes) -> bytes:
        challenge.decode("ascii")
        return super().respond(challenge)


class Misnamed(Reversed):
    """Has a name that AUTH cannot carry."""

    name = "x reversed"


class Strange(Reversed):
    """Masks what it never sent."""

    def secrets(self) -> tuple[bytes, ...]:
        return (b"something else",)


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        (Talkative, "test_it_does_not_show_its_secrets"),
        (Endless, "test_a_server_that_never_ends_is_a_violation"),
        (Early, "test_it_begins_incomplete_and_without_secrets"),
        (Crashing, "test_challenges_of_any_kind_raise_nothing_else"),
        (Misnamed, "test_the_name_is_one_of_sasl"),
        (Strange, "test_secrets_are_parts_of_what_was_sent"),
    ],
)
def test_faults_are_found(fault: type[Mechanism], test: str) -> None:
    class Faulty(MechanismContract):
        mechanism = fault
        credentials = account(fault)
        users = ANN
        server = staticmethod(reversed_server)

    with pytest.raises((AssertionError, UnicodeDecodeError)):
        getattr(Faulty(), test)()


def test_by_default_a_mechanism_counts_as_one_that_shows_the_password() -> None:
    assert Reversed.exposes is Exposure.SECRET
