"""The corpus, read back by the standard library and by Dovecot: what was asked for is what they find."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import PoolLimits
from tests.lab import THOROUGH, client_of, gathered
from tests.servers import dovecot_reader
from tests.servers.dovecot import Dovecot

from .corpus import HARD, LETTERS, OTHERS, Letter, Seen, by_stdlib, expected, generated, seen_file
from .reading import check_wire_form

GENERATED = 320 if THOROUGH else 60
BLOCK = 20


def check_with_stdlib(letter: Letter, eightbit: bool) -> None:
    content = letter.message().content(eightbit=eightbit, utf8=True)
    data = content.join()
    check_wire_form(data)
    assert content.size == len(data)
    assert content.eightbit is not data.isascii()
    assert by_stdlib(data) == expected(letter)


@pytest.mark.parametrize("eightbit", [False, True], ids=["7bit", "8bit"])
@pytest.mark.parametrize("letter", HARD, ids=[letter.name for letter in HARD])
def test_the_standard_library_reads_a_hard_one(letter: Letter, eightbit: bool) -> None:
    check_with_stdlib(letter, eightbit)


@pytest.mark.parametrize("eightbit", [False, True], ids=["7bit", "8bit"])
@pytest.mark.parametrize("start", range(0, GENERATED, BLOCK))
def test_the_standard_library_reads_generated_ones(start: int, eightbit: bool) -> None:
    for number in range(start, start + BLOCK):
        check_with_stdlib(generated(number), eightbit)


def test_generated_letters_differ() -> None:
    letters = [generated(number) for number in range(GENERATED)]
    assert len({repr(letter[1:]) for letter in letters}) >= GENERATED * 0.9


@given(LETTERS, st.booleans())
def test_the_standard_library_reads_any(letter: Letter, eightbit: bool) -> None:
    check_with_stdlib(letter, eightbit)


def by_dovecot(mail: dovecot_reader.Mail) -> Seen:
    texts = [part for part in mail.parts if part.disposition is None]
    files = [part for part in mail.parts if part.disposition is not None]
    return Seen(
        mail.subject,
        mail.people,
        mail.others,
        tuple(
            [
                (part.content_type[5:], part.data.decode(part.charset or "ascii").replace("\r\n", "\n"))
                for part in texts
            ]
        ),
        tuple(
            [seen_file(part.filename, part.content_type, (part.cid or "")[1:-1], part.data) for part in files]
        ),
    )


@pytest.mark.server
@pytest.mark.parametrize("eightbit", [False, True], ids=["7bit", "8bit"])
async def test_dovecot_reads_all(eightbit: bool, dovecot: Dovecot) -> None:
    letters = [*HARD, *map(generated, range(GENERATED))]
    # A mailbox for each of the two; the letters' own recipients are elsewhere.
    user = "user" if eightbit else "user2"
    sent: dict[str | None, Letter] = {}
    dovecot.clear()
    async with client_of(
        dovecot, port=dovecot.lmtp_port, lmtp=True, pool=PoolLimits(max_connections=4)
    ) as client:

        async def send(letter: Letter) -> None:
            message, recipients = letter.message(), [f"{user}@lab.test"]
            if eightbit:
                receipt = await client.send(message, recipients=recipients)
            else:
                receipt = await client.send_raw(
                    message.as_bytes(), sender="ann@example.com", recipients=recipients
                )
            sent[receipt.message_id] = letter

        assert set(await gathered(*map(send, letters))) == {None}
    mails = dovecot_reader.read(dovecot, user, OTHERS)
    dovecot.clear()
    for mail in mails:
        letter = sent.pop(mail.message_id)
        assert by_dovecot(mail) == expected(letter), letter.name
    assert not sent
    encodings = {part.encoding for mail in mails for part in mail.parts}
    assert ("8bit" in encodings) is eightbit
