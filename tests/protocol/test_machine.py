"""machine.py: single commands, what is recorded of them, and replies that answer nothing."""

import pytest

from smtp_async.errors import InvalidArgument, PlaintextInjected, ProtocolViolation, UsageError
from smtp_async.model.reply import Reply
from smtp_async.protocol.extensions import NO_EXTENSIONS
from smtp_async.protocol.machine import ClientProtocol
from smtp_async.protocol.states import Stage, Verb
from tests.protocol.talk import Talk, lines

#: How to write each command, the line that leaves, the `Timeouts` field that limits its reply.
SINGLE = [
    (lambda m: m.reset(), "RSET", "mail"),
    (lambda m: m.noop(), "NOOP", "command"),
    (lambda m: m.verify("bob"), "VRFY bob", "command"),
    (lambda m: m.expand("staff"), "EXPN staff", "command"),
    (lambda m: m.command("HELP me"), "HELP me", "command"),
    (lambda m: m.auth("LOGIN", None), "AUTH LOGIN", "auth"),
    (lambda m: m.auth("PLAIN", b"\0a\0b"), "AUTH PLAIN AGEAYg==", "auth"),
    (lambda m: m.starttls(), "STARTTLS", "command"),
    (lambda m: m.command("MAIL FROM:<a@example.com>"), "MAIL FROM:<a@example.com>", "mail"),
    (lambda m: m.quit(), "QUIT", "quit"),
]
IDS = [line.split()[0] for _, line, _ in SINGLE]


def test_a_conversation_begins_with_the_servers_greeting(deliver):
    talk = Talk(deliver)
    machine = talk.machine
    assert (machine.stage, machine.expected, machine.answering) == (Stage.GREETING, "greeting", "greeting")
    assert not machine.idle
    with pytest.raises(UsageError):
        machine.hello("me.example")
    talk.says("220-mx.example.org", "220 ESMTP")
    assert machine.greeting.reply == Reply(220, (b"mx.example.org", b"ESMTP"))
    assert talk.settled() == [machine.greeting]
    assert (machine.stage, machine.expected, machine.answering) == (Stage.HELLO, None, None)
    assert machine.idle
    talk.writes()


@pytest.mark.parametrize("code", [421, 450, 554])
def test_a_refusing_greeting_lets_nothing_be_written_but_quit(deliver, code):
    talk = Talk(deliver)
    talk.says(f"{code} no")
    talk.stands(Stage.REFUSED)
    assert talk.settled() == [talk.machine.greeting]
    for write in (talk.machine.noop, lambda: talk.machine.hello("me.example")):
        with pytest.raises(UsageError):
            write()
    # Behind a 421 the server is closing already.
    assert talk.machine.may_quit is (code != 421)


def test_ehlo_learns_what_is_offered(deliver):
    talk = Talk(deliver)
    talk.says("220 mx")
    exchange = talk.machine.hello("me.example")
    assert talk.machine.has_output
    talk.writes("EHLO me.example")
    assert not talk.machine.has_output
    assert (talk.machine.stage, talk.machine.expected, talk.machine.answering) == (
        Stage.GREETED,
        "hello",
        "EHLO",
    )
    assert not talk.machine.pipelining
    talk.says("250-mx.example.org", "250-PIPELINING", "250 SIZE 100")
    assert exchange.reply is not None
    assert talk.settled() == [talk.machine.greeting, exchange]
    assert talk.machine.pipelining
    assert talk.machine.extensions.size == 100
    talk.stands(Stage.READY)


def test_lmtp_says_lhlo(deliver):
    talk = Talk.ready(deliver, lmtp=True)
    assert talk.machine.extensions.pipelining


def test_helo_follows_a_refused_ehlo_and_offers_nothing(deliver):
    talk = Talk(deliver)
    talk.says("220 mx")
    talk.machine.hello("me.example")
    talk.writes("EHLO me.example")
    talk.says("502 what?")
    talk.stands(Stage.HELLO)
    assert talk.machine.extensions is NO_EXTENSIONS
    talk.machine.helo("me.example")
    talk.writes("HELO me.example")
    talk.says("250-mx", "250 PIPELINING")
    talk.stands(Stage.READY)
    assert talk.machine.extensions is NO_EXTENSIONS


@pytest.mark.parametrize(("refuses_ehlo", "domain"), [(False, "mx.example"), (True, "")])
def test_a_server_that_answered_ehlo_has_said_its_name(refuses_ehlo, domain):
    talk = Talk()
    talk.says("220 mx")
    talk.machine.hello("me.example")
    talk.writes("EHLO me.example")
    if refuses_ehlo:
        talk.says("502 what?")
        talk.machine.helo("me.example")
        talk.writes("HELO me.example")
        talk.says("250 mx.example")
    else:
        talk.says("250 mx.example at your service")
    talk.stands(Stage.READY)
    assert talk.machine.extensions.domain == domain


def test_a_refused_helo_teaches_nothing():
    talk = Talk()
    talk.says("220 mx")
    talk.machine.helo("me.example")
    talk.writes("HELO me.example")
    talk.says("550 no")
    talk.stands(Stage.HELLO)


def test_pipelining_can_be_switched_off():
    assert not Talk.ready(pipelining=False).machine.pipelining


@pytest.mark.parametrize(("write", "line", "clock"), SINGLE, ids=IDS)
def test_a_command_is_written_and_answered(deliver, write, line, clock):
    talk = Talk.ready(deliver)
    machine = talk.machine
    answered = machine.answered
    exchange = write(machine)
    talk.writes(line)
    assert machine.expected == clock
    assert machine.answering == exchange.verb.value
    assert exchange.reply is None
    assert not machine.idle
    talk.says("250-one", "250 two")
    assert exchange.reply == Reply(250, (b"one", b"two"))
    assert talk.settled() == [exchange]
    assert talk.settled() == []
    assert machine.answered == answered + 1
    assert machine.idle
    talk.writes()


@pytest.mark.parametrize(("write", "line", "clock"), SINGLE, ids=IDS)
def test_421_may_answer_any_command(deliver, write, line, clock):
    talk = Talk.ready(deliver)
    exchange = write(talk.machine)
    talk.writes(line)
    talk.says("421 closing")
    assert exchange.reply == talk.machine.reply_421 == Reply(421, (b"closing",))
    assert talk.machine.pipeline.exhausted
    assert not talk.machine.pipeline.can_begin


@pytest.mark.parametrize(("write", "line", "clock"), SINGLE, ids=IDS)
@pytest.mark.parametrize("extra", ["250 ok", "354 go", "550 no"])
def test_a_second_reply_is_a_violation(deliver, write, line, clock, extra):
    talk = Talk.ready(deliver)
    write(talk.machine)
    talk.writes(line)
    expected = PlaintextInjected if line == "STARTTLS" else ProtocolViolation
    with pytest.raises(ProtocolViolation) as caught:
        talk.says("250 ok", extra)
    # By octet the second reply is seen for itself.
    assert type(caught.value) in (expected, ProtocolViolation)


@pytest.mark.parametrize(("write", "line", "clock"), SINGLE, ids=IDS)
def test_a_reply_before_its_command_was_handed_over_is_a_violation(deliver, write, line, clock):
    talk = Talk.ready(deliver)
    exchange = write(talk.machine)
    with pytest.raises(ProtocolViolation, match="no command asked for"):
        talk.says("250 ok")
    assert exchange.reply is None


@pytest.mark.parametrize("text", ["250 ok", "220 again", "354 go", "451 wait", "550 no"])
def test_an_unasked_reply_is_a_violation(deliver, text):
    talk = Talk.ready(deliver)
    with pytest.raises(ProtocolViolation) as caught:
        talk.says(text)
    assert caught.value.stage == "ready"
    assert caught.value.reply == Reply(int(text[:3]), (text[4:].encode(),))
    assert not caught.value.connection_usable


def test_421_may_come_unasked(deliver):
    talk = Talk.ready(deliver)
    talk.machine.recorder.recording = True
    talk.says("421 idle for too long")
    assert talk.machine.reply_421 == Reply(421, (b"idle for too long",))
    assert [(line.verb, line.reply) for line in talk.machine.recorder.take()] == [
        (Verb.OTHER, talk.machine.reply_421)
    ]
    assert talk.settled() == []
    assert talk.machine.pipeline.exhausted


def test_an_unasked_421_is_noted_without_a_recording_trail():
    talk = Talk.ready()
    talk.says("421 bye")
    with pytest.raises(ProtocolViolation):
        talk.says("250 ok")


def test_garbage_is_a_violation(deliver):
    talk = Talk.ready(deliver)
    talk.machine.noop()
    talk.writes("NOOP")
    with pytest.raises(ProtocolViolation, match="HTTP"):
        talk.says("HTTP/1.1 400 Bad Request")


def test_a_longer_line_can_be_forbidden():
    machine = ClientProtocol(max_line=16)
    with pytest.raises(ProtocolViolation, match="longer than 16"):
        machine.receive_data(b"220 mx.example.org ESMTP\r\n")


@pytest.mark.parametrize(
    "write",
    [write for write, line, _ in SINGLE if line.split()[0] not in {"AUTH", "HELP"}],
    ids=[line.split()[0] for _, line, _ in SINGLE if line.split()[0] not in {"AUTH", "HELP"}],
)
def test_an_intermediate_reply_where_nothing_more_can_come_is_a_violation(deliver, write):
    talk = Talk.ready(deliver)
    exchange = write(talk.machine)
    talk.machine.data_to_send()
    with pytest.raises(ProtocolViolation, match="354 go"):
        talk.says("354 go")
    assert exchange.reply is None


def test_commands_may_follow_each_other_unread(deliver):
    talk = Talk.ready(deliver)
    exchanges = [talk.machine.noop(), talk.machine.verify("bob"), talk.machine.quit()]
    talk.writes("NOOP", "VRFY bob", "QUIT")
    talk.says("250 ok", "252 maybe", "221 bye")
    assert [exchange.reply.code for exchange in exchanges if exchange.reply] == [250, 252, 221]
    assert talk.settled() == exchanges


def test_nothing_may_follow_quit(deliver):
    talk = Talk.ready(deliver)
    talk.machine.quit()
    for write, line, _ in SINGLE:
        with pytest.raises(UsageError):
            write(talk.machine)
        assert line
    talk.writes("QUIT")


@pytest.mark.parametrize("verb", [Verb.AUTH, Verb.NOOP, Verb.STARTTLS])
def test_whether_a_verb_may_be_written_is_asked_without_a_line(deliver, verb):
    talk = Talk.ready(deliver)
    talk.machine.require_writable(verb)
    talk.machine.quit()
    with pytest.raises(UsageError, match=verb.value):
        talk.machine.require_writable(verb)
    talk.writes("QUIT")


def test_a_refused_rset_ends_the_use_of_the_connection(deliver):
    talk = Talk.ready(deliver)
    talk.machine.reset()
    talk.writes("RSET")
    talk.says("500 what?")
    assert talk.machine.pipeline.exhausted


def test_queries_use_smtputf8_where_offered():
    talk = Talk.ready(offer=["SMTPUTF8"])
    talk.machine.verify("böb")
    talk.machine.expand("bob")
    talk.writes("VRFY böb SMTPUTF8", "EXPN bob")
    for query in (Talk.ready().machine.verify, Talk.ready().machine.expand):
        with pytest.raises(InvalidArgument, match="SMTPUTF8"):
            query("böb")


# --- AUTH ---


def test_auth_goes_back_and_forth(deliver):
    talk = Talk.ready(deliver)
    talk.machine.recorder.recording = True
    first = talk.machine.auth("LOGIN", None)
    talk.writes("AUTH LOGIN")
    with pytest.raises(UsageError):
        talk.machine.noop()
    talk.says("334 VXNlcm5hbWU6")
    # A server that knows the password could put it into a challenge.
    assert first.reply == Reply(334, (b"***",))
    assert talk.machine.challenge(first.reply) == b"VXNlcm5hbWU6"
    talk.stands(Stage.AUTH)
    talk.machine.auth_response(b"ann")
    talk.writes("YW5u")
    assert talk.machine.expected == "auth"
    talk.says("334 UGFzc3dvcmQ6")
    talk.machine.auth_response(b"s3cret")
    talk.writes("czNjcmV0")
    talk.says("235 welcome")
    talk.stands(Stage.READY)
    shown = [line.line for line in talk.machine.recorder.take() if line.reply is None]
    assert shown == [b"AUTH LOGIN", b"***", b"***"]


def test_secrets_that_were_sent_are_masked_in_every_reply(deliver):
    talk = Talk.ready(deliver)
    talk.machine.recorder.recording = True
    exchange = talk.machine.auth("PLAIN", b"\0ann\0s3cret!", [b"s3cret!"])
    talk.writes("AUTH PLAIN AGFubgBzM2NyZXQh")
    talk.says('500-what is "AUTH PLAIN AGFubgBz', '500 M2NyZXQh"?')
    assert exchange.reply == Reply(500, (b'what is "AUTH PLAIN ***', b'***"?'))
    later = talk.machine.noop()
    talk.writes("NOOP")
    talk.says("250 s3cret! is no secret")
    assert later.reply == Reply(250, (b"*** is no secret",))
    assert [line.reply for line in talk.machine.recorder.take() if line.reply is not None] == [
        exchange.reply,
        later.reply,
    ]


def test_a_line_that_came_before_the_secret_is_masked_as_well(deliver):
    talk = Talk.ready(deliver)
    for secrets, text in (([b"word"], b"word"), ([b"other"], b"***")):
        exchange = talk.machine.noop()
        talk.writes("NOOP")
        talk.says("250 word")
        assert exchange.reply == Reply(250, (text,))
        talk.machine.auth("PLAIN", b"\0ann\0word", secrets)
        talk.machine.data_to_send()
        talk.says("535 no")


def test_the_code_of_a_reply_is_no_secret(deliver):
    talk = Talk.ready(deliver)
    exchange = talk.machine.auth("PLAIN", b"\0ann\0250", [b"250"])
    talk.machine.data_to_send()
    talk.says("250 250 250")
    assert exchange.reply == Reply(250, (b"*** ***",))


def test_an_enhanced_code_is_no_secret(deliver):
    talk = Talk.ready(deliver)
    exchange = talk.machine.auth("PLAIN", b"\0ann\x005.7.8 no", [b"5.7.8 no"])
    talk.machine.data_to_send()
    talk.says("535 5.7.8 no")
    assert exchange.reply == Reply(535, (b"5.7.8 ***",))
    assert exchange.reply.enhanced == (5, 7, 8)


@pytest.mark.parametrize("password", [b"SIZE", b"1000", b"PIPELINING", b"LOGIN", b"PLAIN LOGIN"])
def test_an_offer_is_read_though_the_password_is_a_word_of_it(deliver, password):
    talk = Talk.ready(deliver)
    talk.machine.auth("PLAIN", b"\0ann\0" + password, [password])
    talk.machine.data_to_send()
    talk.says("235 ok")
    exchange = talk.machine.hello_again()
    talk.machine.data_to_send()
    word = password.decode()
    talk.says(f"250-mx at {word}", "250-SIZE 1000", "250-AUTH PLAIN LOGIN", "250 PIPELINING")
    offer = talk.machine.extensions
    assert set(offer) == {"SIZE", "AUTH", "PIPELINING"}
    assert offer.size == 1000
    assert offer.auth == ("PLAIN", "LOGIN")
    # What is kept of the text is masked as ever.
    assert exchange.reply is not None
    assert exchange.reply.raw[0] == b"mx at ***"
    assert word not in " ".join(exchange.reply.lines)
    later = talk.machine.noop()
    talk.machine.data_to_send()
    talk.says(f"250-ok {word}", f"250 {word}")
    assert later.reply == Reply(250, (b"ok ***", b"***"))


def test_a_refused_ehlo_leaves_nothing_unmasked(deliver):
    talk = Talk.ready(deliver)
    talk.machine.auth("PLAIN", b"\0ann\0s3cret!", [b"s3cret!"])
    talk.machine.data_to_send()
    talk.says("235 ok")
    exchange = talk.machine.hello_again()
    talk.machine.data_to_send()
    talk.says("503-no", "503 s3cret!")
    assert exchange.reply == Reply(503, (b"no", b"***"))
    assert set(talk.machine.extensions) == {"PIPELINING"}


def test_what_is_no_reply_is_masked_in_its_error(deliver):
    talk = Talk.ready(deliver)
    talk.machine.auth("PLAIN", b"\0ann\0s3cret", [b"s3cret"])
    talk.machine.data_to_send()
    with pytest.raises(ProtocolViolation) as caught:
        talk.says("AGFubgBzM2NyZXQ= s3cret")
    assert "'*** ***" in str(caught.value) and "cret" not in str(caught.value)


def test_what_a_challenge_repeats_is_not_changed(deliver):
    """A server may go on with what it was sent, a nonce for example, or repeat it; no challenge is shown."""
    talk = Talk.ready(deliver)
    talk.machine.auth("LOGIN", None)
    talk.writes("AUTH LOGIN")
    talk.says("334 VXNlcm5hbWU6")
    exchange = talk.machine.auth_response(b"ann@example.com")
    talk.writes("YW5uQGV4YW1wbGUuY29t")
    talk.says("334 YW5uQGV4YW1wbGUuY29t")
    assert exchange.reply == Reply(334, (b"***",))
    assert talk.machine.challenge(exchange.reply) == b"YW5uQGV4YW1wbGUuY29t"


def test_auth_can_be_given_up(deliver):
    talk = Talk.ready(deliver)
    talk.machine.recorder.recording = True
    talk.machine.auth("PLAIN", b"\0ann\0s3cret")
    talk.writes("AUTH PLAIN AGFubgBzM2NyZXQ=")
    talk.says("334 ")
    talk.machine.auth_response(None)
    talk.writes("*")
    talk.says("501 cancelled")
    talk.stands(Stage.READY)
    assert [line.line for line in talk.machine.recorder.take() if line.reply is None] == [
        b"AUTH PLAIN ***",
        b"*",
    ]


def test_a_mechanism_of_another_grammar_is_not_written():
    talk = Talk.ready()
    with pytest.raises(InvalidArgument):
        talk.machine.auth("PLÄIN", b"x")
    talk.writes()
    assert talk.machine.idle


# --- STARTTLS ---


def starttls(deliver):
    talk = Talk.ready(deliver, ["STARTTLS", "AUTH PLAIN"])
    talk.machine.starttls()
    talk.writes("STARTTLS")
    with pytest.raises(UsageError):
        talk.machine.noop()
    return talk


def test_tls_makes_the_machine_forget_what_it_learnt(deliver):
    talk = starttls(deliver)
    talk.says("220 go")
    talk.stands(Stage.STARTTLS)
    talk.machine.tls_established()
    talk.stands(Stage.HELLO)
    assert talk.machine.extensions is NO_EXTENSIONS
    with pytest.raises(UsageError):
        talk.machine.noop()
    talk.machine.hello("me.example")
    talk.writes("EHLO me.example")
    talk.says("250 mx")
    assert talk.machine.extensions.auth == ()


@pytest.mark.parametrize("text", ["454 not now", "501 no", "421 bye"])
def test_a_refused_starttls_leaves_the_conversation_as_it_was(deliver, text):
    talk = starttls(deliver)
    talk.says(text)
    talk.stands(Stage.READY)
    assert talk.machine.extensions.auth == ("PLAIN",)


@pytest.mark.parametrize(
    "injected", [b"X", b"250", b"250-AUTH PLAIN\r\n", b"250-mx\r\n250 AUTH PLAIN\r\n", b"\n", b"\r"]
)
def test_plaintext_behind_the_220_is_an_attack(deliver, injected):
    talk = starttls(deliver)
    with pytest.raises(ProtocolViolation):
        deliver(talk.machine, b"220 go\r\n" + injected)
        talk.machine.tls_established()
    talk.stands(Stage.STARTTLS)
    assert talk.machine.extensions.auth == ("PLAIN",)


def test_plaintext_in_the_same_read_names_the_attack():
    talk = starttls(lambda machine, data: machine.receive_data(data))
    with pytest.raises(PlaintextInjected) as caught:
        talk.machine.receive_data(b"220 go\r\n250 ok\r\n")
    assert caught.value.stage == "STARTTLS"


@pytest.mark.parametrize("text", ["220 go", "220 "])
def test_the_reply_to_starttls_may_not_come_first(deliver, text):
    talk = Talk.ready(deliver, ["STARTTLS"])
    talk.machine.noop()
    talk.writes("NOOP")
    with pytest.raises(ProtocolViolation):
        talk.says("250 ok", text)


# --- any other command ---


@pytest.mark.parametrize(
    "line",
    [
        "DATA",
        "BDAT 3 LAST",
        "EHLO x",
        "HELO x",
        "LHLO x",
        "STARTTLS",
        "AUTH PLAIN AGEAYg==",
        "XCLIENT ADDR=1.2.3.4",
    ],
)
def test_a_command_that_the_library_writes_itself_is_refused(line):
    talk = Talk.ready()
    for text in (line, line.lower(), line.title()):
        with pytest.raises(UsageError, match="cannot be sent by hand") as caught:
            talk.machine.command(text)
        assert "AGEAYg" not in str(caught.value)
    talk.writes()
    assert talk.machine.idle


@pytest.mark.parametrize(
    ("line", "verb", "stage"),
    [
        ("noop", Verb.NOOP, Stage.READY),
        ("vrfy bob", Verb.VRFY, Stage.READY),
        ("EXPN staff", Verb.EXPN, Stage.READY),
        ("RSET", Verb.RSET, Stage.READY),
        ("HELP", Verb.OTHER, Stage.READY),
        ("ETRN example.com", Verb.OTHER, Stage.READY),
        ("MAIL FROM:<>", Verb.MAIL, Stage.MAIL),
        ("SEND FROM:<>", Verb.MAIL, Stage.MAIL),
        ("SOML FROM:<>", Verb.MAIL, Stage.MAIL),
        ("saml from:<>", Verb.MAIL, Stage.MAIL),
        ("QUIT", Verb.QUIT, Stage.QUIT),
    ],
)
def test_the_machine_keeps_track_of_commands_written_by_hand(line, verb, stage):
    talk = Talk.ready()
    assert talk.machine.command(line).verb is verb
    assert talk.machine.stage is stage
    talk.writes(line)


def test_a_transaction_begun_by_hand_is_reset_before_the_next(deliver):
    talk = Talk.ready(deliver)
    for line in ("SEND FROM:<a@example.com>", "RCPT TO:<b@example.org>"):
        talk.machine.command(line)
        talk.writes(line)
        talk.says("250 ok")
    transaction = talk.begin()
    talk.writes("RSET", transaction.envelope, "DATA")


def test_rcpt_by_hand_needs_mail_first():
    with pytest.raises(UsageError):
        Talk.ready().machine.command("RCPT TO:<b@example.org>")


def test_a_command_may_be_answered_with_anything(deliver):
    talk = Talk.ready(deliver)
    for text in ("250 ok", "354 more", "451 later", "599 no"):
        exchange = talk.machine.command("XSTUFF")
        talk.writes("XSTUFF")
        talk.says(text)
        assert exchange.reply == Reply(int(text[:3]), (text[4:].encode(),))


# --- what is recorded ---


def test_the_trail_has_every_line_and_names_what_a_reply_answers(deliver):
    talk = Talk.ready(deliver)
    talk.machine.recorder.recording = True
    talk.machine.noop()
    talk.machine.command("HELP me")
    talk.writes("NOOP", "HELP me")
    talk.says("250 ok", "214-one", "214 two")
    recorder = talk.machine.recorder.take()
    assert [(line.verb, line.line, line.reply and line.reply.code) for line in recorder] == [
        (Verb.NOOP, b"NOOP", None),
        (Verb.OTHER, b"HELP me", None),
        (Verb.NOOP, b"", 250),
        (Verb.OTHER, b"", 214),
    ]
    assert all(line.transaction is None for line in recorder)


def test_replies_arrive_as_bytes_not_as_lines():
    talk = Talk.ready()
    talk.machine.noop()
    talk.writes("NOOP")
    data = lines("250-one", "250 two")
    talk.machine.receive_data(data[:13])
    assert talk.settled() == []
    talk.machine.receive_data(data[13:])
    assert len(talk.settled()) == 1
