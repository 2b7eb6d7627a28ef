"""states.py: the table, and when the server may have a transaction open."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import UsageError
from smtp_async.protocol.states import ANSWERS, WRITES, ConnectionState, Stage, Verb
from tests.lab import case

#: The table once more, as a person would write it down: verb by verb.
ALLOWED = {
    Verb.GREETING: {},
    Verb.EHLO: {Stage.HELLO: Stage.GREETED, Stage.READY: Stage.REGREETED},
    Verb.LHLO: {Stage.HELLO: Stage.GREETED, Stage.READY: Stage.REGREETED},
    Verb.HELO: {Stage.HELLO: Stage.GREETED},
    Verb.STARTTLS: {Stage.READY: Stage.STARTTLS},
    Verb.AUTH: {Stage.READY: Stage.AUTH},
    Verb.RESPONSE: {Stage.AUTH: Stage.AUTH},
    Verb.MAIL: {Stage.READY: Stage.MAIL},
    Verb.RCPT: {Stage.MAIL: Stage.RCPT, Stage.RCPT: Stage.RCPT},
    Verb.DATA: {Stage.RCPT: Stage.DATA},
    Verb.END_OF_DATA: {Stage.BODY: Stage.READY},
    Verb.BDAT: {Stage.RCPT: Stage.CHUNKS, Stage.CHUNKS: Stage.CHUNKS},
    Verb.BDAT_LAST: {Stage.RCPT: Stage.READY, Stage.CHUNKS: Stage.READY},
    Verb.RSET: dict.fromkeys([Stage.READY, Stage.MAIL, Stage.RCPT, Stage.ABORTED, Stage.CHUNKS], Stage.READY),
    Verb.NOOP: {Stage.READY: Stage.READY},
    Verb.VRFY: {Stage.READY: Stage.READY},
    Verb.EXPN: {Stage.READY: Stage.READY},
    Verb.OTHER: {Stage.READY: Stage.READY},
    Verb.QUIT: dict.fromkeys(
        [Stage.REFUSED, Stage.HELLO, Stage.READY, Stage.MAIL, Stage.RCPT, Stage.ABORTED, Stage.CHUNKS],
        Stage.QUIT,
    ),
}


def at(stage):
    connection = ConnectionState()
    connection.stage = stage
    return connection


@pytest.mark.parametrize("stage", Stage, ids=lambda stage: stage.name)
def test_what_is_not_in_the_table_raises_and_moves_nothing(stage):
    for verb in Verb:
        with case(verb):
            check_write(stage, verb)


def check_write(stage, verb):
    connection = at(stage)
    following = ALLOWED[verb].get(stage)
    assert connection.may_write(verb) is (following is not None)
    if following is not None:
        connection.wrote(verb)
        assert connection.stage is following
        return
    with pytest.raises(UsageError) as caught:
        connection.wrote(verb)
    assert connection.stage is stage
    assert connection.reset_needed is False
    assert caught.value.stage == stage.value
    assert verb.value in str(caught.value)


def test_every_stage_is_in_the_table():
    assert set(WRITES) == set(Stage)
    assert {verb for row in WRITES.values() for verb in row} == set(Verb) - {Verb.GREETING}


@pytest.mark.parametrize(
    ("stage", "verb", "klass", "following"),
    [
        (Stage.GREETING, Verb.GREETING, 2, Stage.HELLO),
        (Stage.GREETING, Verb.GREETING, 4, Stage.REFUSED),
        (Stage.GREETING, Verb.GREETING, 5, Stage.REFUSED),
        (Stage.GREETED, Verb.EHLO, 2, Stage.READY),
        (Stage.GREETED, Verb.EHLO, 5, Stage.HELLO),
        (Stage.GREETED, Verb.LHLO, 4, Stage.HELLO),
        (Stage.GREETED, Verb.HELO, 2, Stage.READY),
        (Stage.REGREETED, Verb.EHLO, 2, Stage.READY),
        (Stage.REGREETED, Verb.EHLO, 5, Stage.READY),
        (Stage.REGREETED, Verb.LHLO, 4, Stage.READY),
        (Stage.STARTTLS, Verb.STARTTLS, 2, Stage.STARTTLS),
        (Stage.STARTTLS, Verb.STARTTLS, 4, Stage.READY),
        (Stage.AUTH, Verb.AUTH, 3, Stage.AUTH),
        (Stage.AUTH, Verb.AUTH, 5, Stage.READY),
        (Stage.AUTH, Verb.RESPONSE, 3, Stage.AUTH),
        (Stage.AUTH, Verb.RESPONSE, 2, Stage.READY),
        (Stage.DATA, Verb.DATA, 3, Stage.BODY),
        (Stage.DATA, Verb.DATA, 5, Stage.ABORTED),
        (Stage.DATA, Verb.END_OF_DATA, 2, Stage.DATA),
        (Stage.DATA, Verb.MAIL, 5, Stage.DATA),
        (Stage.CHUNKS, Verb.BDAT, 2, Stage.CHUNKS),
        (Stage.CHUNKS, Verb.BDAT, 5, Stage.ABORTED),
        (Stage.READY, Verb.END_OF_DATA, 5, Stage.READY),
        (Stage.RCPT, Verb.RCPT, 5, Stage.RCPT),
    ],
)
def test_an_answer_moves_only_a_stage_that_waits_for_it(stage, verb, klass, following):
    connection = at(stage)
    connection.answered(verb, klass)
    assert connection.stage is following


@given(st.sampled_from(Stage), st.sampled_from(Verb), st.integers(2, 5))
def test_answers_move_by_the_table_and_nowhere_else(stage, verb, klass):
    connection = at(stage)
    connection.answered(verb, klass)
    assert connection.stage is ANSWERS.get((stage, verb), {}).get(klass, stage)


def walk(*steps):
    """A connection that is ready, after `steps`: verbs that are written, and words for what is answered."""
    connection = at(Stage.READY)
    for step in steps:
        if isinstance(step, Verb):
            connection.wrote(step)
        elif step == "closed":
            connection.transaction_closed()
        else:
            connection.answered(Verb.DATA, step)
    return connection


@pytest.mark.parametrize(
    ("needed", "steps"),
    [
        (False, []),
        (False, [Verb.NOOP, Verb.VRFY]),
        (True, [Verb.MAIL]),
        (True, [Verb.MAIL, Verb.RCPT]),
        (True, [Verb.MAIL, Verb.RCPT, Verb.DATA]),
        (True, [Verb.MAIL, Verb.RCPT, Verb.DATA, 5]),
        (True, [Verb.MAIL, Verb.RCPT, Verb.DATA, 3]),
        (True, [Verb.MAIL, Verb.RCPT, Verb.DATA, 3, Verb.END_OF_DATA]),
        (False, [Verb.MAIL, Verb.RCPT, Verb.DATA, 3, Verb.END_OF_DATA, "closed"]),
        (False, [Verb.MAIL, "closed"]),
        (False, [Verb.MAIL, Verb.RCPT, Verb.DATA, 5, "closed"]),
        (False, [Verb.MAIL, Verb.RCPT, Verb.RSET]),
        (True, [Verb.MAIL, Verb.RCPT, Verb.BDAT]),
        (True, [Verb.MAIL, Verb.RCPT, Verb.BDAT, Verb.BDAT_LAST]),
        (False, [Verb.MAIL, Verb.RCPT, Verb.BDAT_LAST, "closed"]),
        (True, [Verb.MAIL, Verb.RSET, Verb.MAIL]),
    ],
)
def test_mail_follows_rset_unless_no_transaction_can_be_open(needed, steps):
    assert walk(*steps).reset_needed is needed


def test_a_closed_transaction_leads_back_to_ready():
    for steps in ([Verb.MAIL], [Verb.MAIL, Verb.RCPT], [Verb.MAIL, Verb.RCPT, Verb.BDAT]):
        assert walk(*steps, "closed").stage is Stage.READY
    for stage in (Stage.READY, Stage.QUIT, Stage.CLOSED):
        connection = at(stage)
        connection.transaction_closed()
        assert connection.stage is stage


def test_a_connection_begins_with_the_greeting_and_ends_closed():
    connection = ConnectionState()
    stages = [connection.stage]
    connection.closed()
    assert [*stages, connection.stage] == [Stage.GREETING, Stage.CLOSED]
    assert not any(connection.may_write(verb) for verb in Verb)


def test_tls_begins_the_conversation_anew():
    connection = at(Stage.STARTTLS)
    connection.tls_established()
    assert connection.stage is Stage.HELLO


@given(st.lists(st.sampled_from(Verb), max_size=30))
def test_no_row_of_commands_hides_an_open_transaction(verbs):
    connection = at(Stage.READY)
    opened = False
    for verb in verbs:
        if not connection.may_write(verb):
            continue
        connection.wrote(verb)
        if verb is Verb.MAIL:
            opened = True
        elif verb is Verb.RSET:
            opened = False
        assert connection.reset_needed is opened
