"""django.py: the backends as Django's own functions use them, with threads, event loops, transactions and forks."""

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import django
import pytest
from django.conf import settings

if not settings.configured:
    settings.configure(
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
            # Its place is filled in by the test that needs it.
            "postgresql": {"ENGINE": "django.db.backends.postgresql"},
        },
        EMAIL_BACKEND="smtp_async.integrations.django.EmailBackend",
        # Django 4.2 reports every error that it logs with all settings, and none may be empty.
        SECRET_KEY="only for these tests",
        USE_TZ=True,
    )
    django.setup()

from django.core import mail as django_mail
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage, EmailMultiAlternatives, get_connection, send_mail, send_mass_mail
from django.db import connections, transaction
from django.test.utils import override_settings
from django.utils.translation import gettext_lazy

from smtp_async import (
    ClientOptions,
    DirectorySpool,
    PoolLimits,
    PostgresSpool,
    Security,
    SendOptions,
    SMTPError,
    Spool,
    TLSOptions,
    TrustOptions,
)
from smtp_async.errors import (
    AuthenticationFailed,
    NotSent,
    RecipientsRefused,
    SocketError,
    SpoolFull,
    Timeout,
)
from smtp_async.integrations.django import EmailBackend, SpoolEmailBackend, asend_mail
from smtp_async.testing import CancelManner, RecordingSink, ServerThread, cancellations, reply, stall
from tests.servers.pki import Pki

ANN, BOB, CARLA = "ann@example.com", "bob@example.org", "carla@example.org"


@pytest.fixture
def sink() -> Iterator[Any]:
    with ServerThread(RecordingSink()) as server, override_settings(**settings_for(server)):
        yield server
        assert server.violations == []


def settings_for(server: Any) -> dict[str, Any]:
    return {"EMAIL_HOST": server.host, "EMAIL_PORT": server.port}


def letter(n: int | str = 1, **fields: Any) -> EmailMessage:
    fields.setdefault("to", [BOB])
    return EmailMessage(f"message {n}", "Hi\n", ANN, **fields)


def connections_of(server: Any) -> int:
    return [command.verb for command in server.commands].count("EHLO")


class TestSending:
    def test_send_mail(self, sink: Any) -> None:
        assert send_mail("Grüße", "Hi Bob\n", f"Ann <{ANN}>", [BOB], html_message="<p>Hi Bob</p>") == 1
        message = sink.messages[0]
        assert (message.mail_from, message.rcpt_tos, message.subject) == (ANN, [BOB], "Grüße")
        text, html = message.parsed.iter_parts()
        assert (text.get_content(), html.get_content_type()) == ("Hi Bob\n", "text/html")

    def test_calls_share_a_connection(self, sink: Any) -> None:
        for n in range(3):
            assert letter(n).send() == 1
        assert [message.subject for message in sink.messages] == [f"message {n}" for n in range(3)]
        assert connections_of(sink) == 1

    def test_threads_share_the_connections(self, sink: Any) -> None:
        options = ClientOptions(pool=PoolLimits(max_connections=3))
        with override_settings(SMTP_ASYNC={"options": options}), ThreadPoolExecutor(10) as threads:
            assert sum(threads.map(lambda n: letter(n).send(), range(40))) == 40
        assert len(sink.messages) == 40 and connections_of(sink) <= 3

    def test_send_mass_mail(self, sink: Any) -> None:
        data = [(f"message {n}", "Hi\n", ANN, [BOB]) for n in range(30)]
        assert send_mass_mail(data) == 30
        assert {message.subject for message in sink.messages} == {one[0] for one in data}
        assert 1 < connections_of(sink) <= 10

    def test_the_envelope(self, sink: Any) -> None:
        message = letter(cc=["Carla <carla@example.org>"], bcc=["dora@example.net"])
        message.from_email = "Ann <bounces@example.com>"
        message.extra_headers["From"] = ANN
        assert message.send() == 1
        assert sink.messages[0].mail_from == "bounces@example.com"
        assert sink.messages[0].rcpt_tos == [BOB, CARLA, "dora@example.net"]
        assert b"dora" not in sink.messages[0].data

    def test_names_of_other_scripts(self, sink: Any) -> None:
        assert letter(to=["bob@bücher.example"]).send() == 1
        assert sink.messages[0].rcpt_tos == ["bob@xn--bcher-kva.example"]

    def test_addresses_that_are_translated_late(self, sink: Any) -> None:
        message = EmailMessage("Hello", "Hi\n", cast(str, gettext_lazy(ANN)), [cast(str, gettext_lazy(BOB))])
        assert message.send() == 1
        assert (sink.messages[0].mail_from, sink.messages[0].rcpt_tos) == (ANN, [BOB])

    def test_without_recipients_nothing_is_sent(self, sink: Any) -> None:
        connection = get_connection()
        assert (connection.send_messages([]), letter(to=[]).send()) == (0, 0)
        assert connection.send_messages([letter(to=[]), letter(2)]) == 1
        assert [message.subject for message in sink.messages] == ["message 2"]

    def test_attachments(self, sink: Any) -> None:
        message = EmailMultiAlternatives("Files", "Hi\n", ANN, [BOB])
        message.attach("data.bin", b"\0\1\2" * 50_000, "application/octet-stream")
        assert message.send() == 1
        (attached,) = sink.messages[0].parsed.iter_attachments()
        assert attached.get_content() == b"\0\1\2" * 50_000

    def test_a_line_end_in_a_header(self, sink: Any) -> None:
        with pytest.raises(ValueError, match="newlines|linefeed|carriage"):
            EmailMessage("Hello\nBcc: eve@example.org", "Hi\n", ANN, [BOB]).send()
        assert sink.messages == []

    def test_one_refused_recipient_does_not_stop_the_others(self, sink: Any) -> None:
        sink.on("RCPT", reply(550, "5.1.1 no such user"), match="bob")
        assert letter(to=[BOB, CARLA]).send() == 1
        assert sink.messages[0].rcpt_tos == [CARLA]

    def test_options_of_the_client_decide_otherwise(self, sink: Any) -> None:
        sink.on("RCPT", reply(550, "5.1.1 no such user"), match="bob")
        with override_settings(SMTP_ASYNC={"options": ClientOptions(send=SendOptions())}):
            with pytest.raises(RecipientsRefused):
                letter(to=[BOB, CARLA]).send()


class TestFailures:
    def test_a_refusal_is_raised(self, sink: Any) -> None:
        sink.on("RCPT", reply(550, "5.1.1 no such user"))
        with pytest.raises(RecipientsRefused, match="no such user"):
            letter().send()

    def test_a_refusal_may_be_silent(self, sink: Any) -> None:
        sink.on("RCPT", reply(550, "5.1.1 no such user"))
        assert letter().send(fail_silently=True) == 0

    def test_silent_failures_stop_no_other_message(self, sink: Any) -> None:
        sink.on("RCPT", reply(550, "5.1.1 no such user"), match="eve")
        messages = [letter(n, to=["eve@example.org" if n % 3 == 0 else BOB]) for n in range(9)]
        messages[1].to = ["not an address"]
        assert get_connection(fail_silently=True).send_messages(messages) == 5

    def test_the_first_failure_stops_those_that_have_not_begun(self, sink: Any) -> None:
        sink.on("RCPT", reply(550, "5.1.1 no such user"), match="eve")
        messages = [letter(n, to=["eve@example.org" if n == 0 else BOB]) for n in range(200)]
        with pytest.raises(RecipientsRefused):
            get_connection().send_messages(messages)
        assert len(sink.messages) < 150

    @override_settings(EMAIL_HOST="127.0.0.1", EMAIL_PORT=1)
    def test_no_server(self) -> None:
        with pytest.raises(SocketError, match="127.0.0.1:1"):
            letter().send()
        with pytest.raises(SMTPError):
            get_connection().send_messages([letter(1), letter(2)])
        assert letter().send(fail_silently=True) == 0
        assert get_connection(fail_silently=True).send_messages([letter(1), letter(2)]) == 0

    def test_a_time_limit(self, sink: Any) -> None:
        sink.on("MAIL", stall())
        with override_settings(EMAIL_TIMEOUT=0.2), pytest.raises(NotSent) as caught:
            letter().send()
        assert isinstance(caught.value, Timeout) or isinstance(caught.value.__cause__, Timeout)


class TestOpening:
    def test_open_says_whether_it_was_needed(self, sink: Any) -> None:
        connection = get_connection()
        assert (connection.open(), connection.open()) == (True, False)
        assert connections_of(sink) == 1
        connection.close()
        letter().send()
        assert connection.open() is True
        # A connection of the pool is proof enough.
        assert connections_of(sink) == 2

    @override_settings(EMAIL_HOST="127.0.0.1", EMAIL_PORT=1)
    def test_open_fails_as_a_message_would(self) -> None:
        with pytest.raises(SocketError):
            get_connection().open()
        assert get_connection(fail_silently=True).open() is None

    def test_with_a_block(self, sink: Any) -> None:
        with get_connection() as connection:
            assert connection.send_messages([letter()]) == 1
        assert len(sink.messages) == 1

    def test_a_wrong_password_is_found_by_open(self, pki: Pki) -> None:
        server = RecordingSink(ssl_context=pki.server_context(), users={"ann": "secret"})
        options = ClientOptions(tls=TLSOptions(trust=TrustOptions(ca_file=pki.ca_file)))
        with ServerThread(server) as sink, override_settings(SMTP_ASYNC={"options": options}):
            account: dict[str, Any] = {"username": "ann", "password": "wrong", "use_tls": True}
            with pytest.raises(AuthenticationFailed) as caught:
                get_connection(host="localhost", port=sink.port, **account).open()
            assert "wrong" not in str(caught.value)


class TestSettings:
    @pytest.mark.parametrize(
        ("given", "security"),
        [
            ({"EMAIL_USE_SSL": True}, Security.IMPLICIT),
            ({"EMAIL_USE_TLS": True}, Security.STARTTLS),
            ({}, Security.AUTO),
            ({"EMAIL_USE_TLS": True, "SMTP_ASYNC": {"security": Security.PLAINTEXT}}, Security.PLAINTEXT),
        ],
        ids=["ssl", "tls", "neither", "own"],
    )
    def test_security(self, given: dict[str, Any], security: Security) -> None:
        with override_settings(**given):
            assert EmailBackend().security is security

    @override_settings(SMTP_ASYNC={"security": Security.PLAINTEXT})
    @pytest.mark.parametrize("mailer", [{}, {"alias": "orders"}], ids=["argument", "mailer"])
    def test_the_nearer_setting_decides_about_tls(self, mailer: dict[str, Any]) -> None:
        def security(**given: Any) -> Security:
            return EmailBackend(host="mx.test", **mailer, **given).security

        assert security(use_tls=True) is Security.STARTTLS
        assert security(use_ssl=True) is Security.IMPLICIT
        assert security() is security(use_tls=False) is Security.PLAINTEXT
        assert security(use_tls=True, security=Security.AUTO) is Security.AUTO

    @override_settings(EMAIL_HOST_USER="ann", EMAIL_HOST_PASSWORD="secret", EMAIL_TIMEOUT=7)
    def test_arguments_come_before_settings(self) -> None:
        backend = EmailBackend(username="bob", password="", host="mx.test", port=2525)
        assert (backend.username, backend.password, backend.timeout) == ("bob", "", 7)
        assert (backend.host, backend.port) == ("mx.test", 2525)

    def test_both_kinds_of_tls_are_refused(self) -> None:
        with pytest.raises(ValueError, match="exclude each other"):
            EmailBackend(use_tls=True, use_ssl=True)

    @override_settings(SMTP_ASYNC={"secruity": None})
    def test_an_unknown_setting_is_refused(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="no setting 'secruity'"):
            EmailBackend()

    @pytest.mark.parametrize("use_ssl", [False, True])
    def test_tls_a_login_and_a_client_certificate(self, use_ssl: bool, pki: Pki) -> None:
        server = RecordingSink(
            ssl_context=pki.server_context(ask_client=True), users={"ann": "secret"}, implicit_tls=use_ssl
        )
        options = ClientOptions(tls=TLSOptions(trust=TrustOptions(ca_file=pki.ca_file)))
        with ServerThread(server) as sink:
            with override_settings(
                EMAIL_HOST="localhost",
                EMAIL_PORT=sink.port,
                EMAIL_USE_TLS=not use_ssl,
                EMAIL_USE_SSL=use_ssl,
                EMAIL_HOST_USER="ann",
                EMAIL_HOST_PASSWORD="secret",
                EMAIL_SSL_CERTFILE=str(pki.client.certificate),
                EMAIL_SSL_KEYFILE=str(pki.client.key),
                SMTP_ASYNC={"options": options},
            ):
                assert letter().send() == 1
        assert (server.messages[0].user, server.messages[0].tls) == ("ann", True)

    def test_options_that_cannot_be_hashed_still_share_a_client(self, sink: Any) -> None:
        options = ClientOptions(send=SendOptions(sign=[]))
        with override_settings(SMTP_ASYNC={"options": options}):
            assert letter(1).send() + letter(2).send() == 2
        assert connections_of(sink) == 1


@pytest.mark.skipif(django.VERSION < (6, 1), reason="MAILERS came with Django 6.1")
class TestMailers:
    def mailer(self, backend: type = EmailBackend, **options: Any) -> Any:
        place = f"{backend.__module__}.{backend.__name__}"
        return override_settings(MAILERS={"default": {"BACKEND": place, "OPTIONS": options}})

    def made(self, backend: type = EmailBackend, **options: Any) -> Any:
        with self.mailer(backend, **options):
            return cast(Any, django_mail).mailers["default"]

    @pytest.mark.parametrize("use_ssl", [False, True])
    def test_its_options_are_those_of_djangos_own(self, use_ssl: bool, pki: Pki) -> None:
        server = RecordingSink(
            ssl_context=pki.server_context(ask_client=True), users={"ann": "secret"}, implicit_tls=use_ssl
        )
        options = ClientOptions(tls=TLSOptions(trust=TrustOptions(ca_file=pki.ca_file)))
        with (
            ServerThread(server) as sink,
            override_settings(SMTP_ASYNC={"options": options}),
            self.mailer(
                host="localhost",
                port=sink.port,
                username="ann",
                password="secret",
                use_tls=not use_ssl,
                use_ssl=use_ssl,
                ssl_certfile=str(pki.client.certificate),
                ssl_keyfile=str(pki.client.key),
                timeout=7,
            ),
        ):
            assert cast(Any, django_mail).mailers.default.timeout == 7
            assert send_mail("Hello", "Hi\n", ANN, [BOB]) == 1
        assert (server.messages[0].user, server.messages[0].tls) == ("ann", True)

    def test_a_time_limit(self, sink: Any) -> None:
        sink.on("MAIL", stall())
        with self.mailer(host=sink.host, port=sink.port, timeout=0.2), pytest.raises(NotSent) as caught:
            letter().send()
        assert isinstance(caught.value, Timeout) or isinstance(caught.value.__cause__, Timeout)

    def test_the_usual_port_is_that_of_the_kind_of_tls(self) -> None:
        def port(**options: Any) -> int:
            return int(self.made(host="mx.test", **options).port)

        assert (port(), port(use_tls=True), port(use_ssl=True)) == (25, 587, 465)

    @pytest.mark.parametrize(
        ("backend", "options", "problem"),
        [
            (EmailBackend, {}, "no mail server is named: set host"),
            (EmailBackend, {"host": "mx.test", "use_tls": True, "use_ssl": True}, "exclude each other"),
            (EmailBackend, {"host": "mx.test", "use_tsl": True}, "use_tsl"),
            (SpoolEmailBackend, {}, "names no spool"),
        ],
        ids=["no host", "both kinds of TLS", "unknown", "no spool"],
    )
    def test_wrong_options(self, backend: type, options: dict[str, Any], problem: str) -> None:
        with pytest.raises(cast(Any, django_mail).InvalidMailer, match=rf"'default'.*{problem}"):
            self.made(backend, **options)

    def test_a_spool(self, tmp_path: Path) -> None:
        with self.mailer(SpoolEmailBackend, spool=tmp_path / "spool"):
            assert send_mail("Hello", "Hi\n", ANN, [BOB]) == 1
        assert subjects(tmp_path / "spool") == ["Hello"]

    async def test_asend_mail_by_its_name(self, sink: Any) -> None:
        with self.mailer(host=sink.host, port=sink.port):
            assert await asend_mail("Hello", "Hi\n", ANN, [BOB], using="default") == 1
        assert [message.subject for message in sink.messages] == ["Hello"]

    def test_a_backend_of_arguments_beside_mailers(self, sink: Any) -> None:
        """Django does not let the EMAIL_* settings be read then."""
        with self.mailer(host="mx.test"):
            assert EmailBackend(host=sink.host, port=sink.port).send_messages([letter()]) == 1
        assert len(sink.messages) == 1


class TestAsync:
    async def test_asend_mail(self, sink: Any) -> None:
        count = await asend_mail("Hello", "Hi\n", ANN, [BOB], html_message="<p>Hi</p>")
        assert count == 1 and sink.messages[0].parsed.is_multipart()

    async def test_many_at_once_share_the_connections(self, sink: Any) -> None:
        counts = await asyncio.gather(*(asend_mail("Hello", "Hi\n", ANN, [BOB]) for _ in range(30)))
        assert sum(counts) == 30 and connections_of(sink) <= 10

    def test_every_call_may_have_a_loop_of_its_own(self, sink: Any) -> None:
        """As with `async_to_sync` in a thread."""
        for _ in range(3):
            assert asyncio.run(asend_mail("Hello", "Hi\n", ANN, [BOB])) == 1
        assert connections_of(sink) == 1

    async def test_failures(self, sink: Any) -> None:
        sink.on("RCPT", reply(550, "5.1.1 no such user"))
        with pytest.raises(RecipientsRefused):
            await asend_mail("Hello", "Hi\n", ANN, [BOB])
        assert await asend_mail("Hello", "Hi\n", ANN, [BOB], fail_silently=True) == 0
        assert await asend_mail("Hello", "Hi\n", ANN, []) == 0

    async def test_another_backend_is_called_in_a_thread(self) -> None:
        with override_settings(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend"):
            django_mail.outbox = []
            assert await asend_mail("Hello", "Hi\n", ANN, [BOB]) == 1
            assert [one.subject for one in django_mail.outbox] == ["Hello"]
            del django_mail.outbox

    async def test_a_blocking_call_from_a_coroutine_works_as_with_djangos_own(self, sink: Any) -> None:
        assert letter().send() == 1

    @pytest.mark.parametrize("manner", CancelManner)
    async def test_cancelling_harms_nothing(self, manner: CancelManner, sink: Any) -> None:
        async for moment in cancellations(lambda: asend_mail("Hello", "Hi\n", ANN, [BOB]), manner=manner):
            del moment
        assert await asend_mail("Last", "Hi\n", ANN, [BOB]) == 1
        assert sink.messages[-1].subject == "Last"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_worker_has_connections_of_its_own(sink: Any) -> None:
    letter(1).send()
    child = os.fork()
    if child == 0:  # pragma: no cover
        status = 1
        try:
            status = 0 if letter(2).send() == 1 else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    letter(3).send()
    assert [message.subject for message in sink.messages] == ["message 1", "message 2", "message 3"]
    assert connections_of(sink) == 2


# --- spool ---------------------------------------------------------------------------------------------------


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Path]:
    with override_settings(
        EMAIL_BACKEND="smtp_async.integrations.django.SpoolEmailBackend",
        SMTP_ASYNC={"spool": tmp_path / "spool"},
    ):
        yield tmp_path / "spool"


async def _make_schema(url: str) -> None:
    async with PostgresSpool(url, schema="django_mail") as spool:
        await spool.create_schema()


async def _rows(url: str) -> list[str]:
    async with PostgresSpool(url, schema="django_mail") as spool:
        return await _subjects_in(spool)


async def _subjects(path: Path) -> list[str]:
    async with DirectorySpool(path) as spool:
        return await _subjects_in(spool)


async def _subjects_in(spool: Spool) -> list[str]:
    texts = [await spool.read(entry.id) async for entry in spool.list()]
    return sorted(text.split(b"Subject: ")[1].split(b"\r\n")[0].decode() for text in texts)


def subjects(path: Path) -> list[str]:
    return asyncio.run(_subjects(path)) if path.exists() else []


class TestSpool:
    def test_a_message_is_put(self, spool: Path) -> None:
        assert send_mail("Hello", "Hi\n", ANN, [BOB]) == 1
        assert send_mass_mail([("Two", "Hi\n", ANN, [BOB]), ("Three", "Hi\n", ANN, [BOB])]) == 2
        assert letter(to=[]).send() == 0
        assert subjects(spool) == ["Hello", "Three", "Two"]

    def test_a_message_of_a_transaction_is_put_by_its_commit(self, spool: Path) -> None:
        with transaction.atomic():
            assert letter(1).send() == 1
            assert subjects(spool) == []
        assert subjects(spool) == ["message 1"]

    def test_a_message_of_a_transaction_that_is_rolled_back_is_never_put(self, spool: Path) -> None:
        with pytest.raises(KeyError), transaction.atomic():
            letter(1).send()
            raise KeyError
        assert subjects(spool) == []

    def test_a_message_that_cannot_be_put_by_the_commit_stops_no_other(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Small(DirectorySpool):
            async def put(self, message: Any, **fields: Any) -> str:
                if "long" in message.envelope().recipients[0].address.local:
                    raise SpoolFull("no space left")
                return await super().put(message, **fields)

        done: list[str] = []
        backend = SpoolEmailBackend(spool=lambda: Small(tmp_path / "small", create=True))
        with transaction.atomic():
            assert backend.send_messages([letter(1, to=["long@example.org"]), letter(2)]) == 2
            assert backend.send_messages([letter(3, to=["long@example.org"])]) == 1
            assert backend.send_messages([letter(4)]) == 1
            transaction.on_commit(lambda: done.append("other"))
        assert subjects(tmp_path / "small") == ["message 2", "message 4"]
        assert done == ["other"] and caplog.text.count("SpoolFull: no space left") == 2

    def test_a_message_is_put_as_it_was_when_it_was_sent(self, spool: Path) -> None:
        with transaction.atomic():
            message = letter(1)
            message.send()
            message.subject = "changed"
        assert subjects(spool) == ["message 1"]

    def test_a_spool_that_joins_the_transaction(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As that of PostgreSQL does; here the database only says that it is one."""
        put: list[Any] = []

        class Joining(DirectorySpool):
            def put_blocking(self, message: Any, *, connection: Any) -> str:
                put.append(connection.in_atomic_block)
                return "1"

            def is_in(self, host: str, port: int, database: str) -> bool:
                return (host, port, database) == ("db.test", 5432, "shop")

        database = transaction.get_connection()
        monkeypatch.setattr(database, "vendor", "postgresql")
        monkeypatch.setattr(database, "settings_dict", {**database.settings_dict, "HOST": "db.test"})

        def make() -> Spool:
            return Joining(tmp_path / "joining", create=True)

        backend = SpoolEmailBackend(spool=make)
        with transaction.atomic():
            # The spool is in another database.
            assert backend.send_messages([letter(1)]) == 1
        assert put == [] and subjects(tmp_path / "joining") == ["message 1"]
        with transaction.atomic():
            # Named, the database is that of the spool.
            assert SpoolEmailBackend(spool=make, database="default").send_messages([letter(2)]) == 1
            assert put == [True]
        database.settings_dict["NAME"] = "shop"
        with transaction.atomic():
            assert backend.send_messages([letter(3)]) == 1
            assert put == [True, True]
        assert backend.send_messages([letter(4)]) == 1
        assert put == [True, True] and subjects(tmp_path / "joining") == ["message 1", "message 4"]

    @pytest.mark.server
    def test_a_message_is_a_row_of_a_transaction_of_postgresql(self, postgres: Any) -> None:
        url = urlsplit(postgres.url())
        place = {"HOST": url.hostname, "PORT": url.port, "USER": url.username, "NAME": url.path[1:]}
        database = connections["postgresql"]
        database.settings_dict.update(place)
        asyncio.run(_make_schema(postgres.url()))
        own = {"spool": lambda: PostgresSpool(postgres.url(), schema="django_mail"), "database": "postgresql"}
        assert PostgresSpool(postgres.url()).is_in(url.hostname or "", url.port or 0, url.path[1:])
        try:
            with override_settings(SMTP_ASYNC=own):
                backend = SpoolEmailBackend()
                with transaction.atomic(using="postgresql"):
                    assert backend.send_messages([letter(1)]) == 1
                    assert asyncio.run(_rows(postgres.url())) == []
                with pytest.raises(KeyError), transaction.atomic(using="postgresql"):
                    backend.send_messages([letter(2)])
                    raise KeyError
                assert backend.send_messages([letter(3)]) == 1
                assert asyncio.run(backend.asend_messages([letter(4)])) == 1
        finally:
            database.close()
        assert asyncio.run(_rows(postgres.url())) == ["message 1", "message 3", "message 4"]

    async def test_from_a_coroutine(self, spool: Path) -> None:
        assert await asend_mail("Hello", "Hi\n", ANN, [BOB]) == 1
        assert await _subjects(spool) == ["Hello"]

    def test_a_spool_that_fails(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("no directory")
        backend = SpoolEmailBackend(spool=tmp_path / "file")
        with pytest.raises(SMTPError):
            backend.send_messages([letter()])
        assert SpoolEmailBackend(fail_silently=True, spool=tmp_path / "file").send_messages([letter()]) == 0

    def test_a_spool_made_by_a_callable(self, tmp_path: Path) -> None:
        made: list[Spool] = []

        def make() -> Spool:
            made.append(DirectorySpool(tmp_path / "own", create=True, durable=False))
            return made[-1]

        with override_settings(SMTP_ASYNC={"spool": make}):
            assert SpoolEmailBackend().send_messages([letter(1)]) == 1
            assert SpoolEmailBackend().send_messages([letter(2)]) == 1
        assert len(made) == 1 and subjects(tmp_path / "own") == ["message 1", "message 2"]

    def test_no_spool_is_named(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="names no spool"):
            SpoolEmailBackend()
