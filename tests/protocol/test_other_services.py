"""other_services.py: what is no mail server, by its first words and by its port."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.protocol.extensions import Extensions
from smtp_async.protocol.other_services import masks_starttls, not_smtp, service_of_port, spoken_by


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (b"HTTP/1.1 400 Bad", "HTTP"),
        (b"SSH-2.0-OpenSSH_", "SSH"),
        (b"* OK [CAPABILITY", "IMAP"),
        (b"* PREAUTH", "IMAP"),
        (b"* BYE", "IMAP"),
        (b"+OK ready", "POP3"),
        (b"-ERR no", "POP3"),
        (b"220 mx", None),
        (b"SS", None),
        (b"", None),
    ],
)
def test_the_first_words(first, name):
    assert spoken_by(first) == name


@given(st.from_regex(rb"[2-5][0-9]{2}[ -].*", fullmatch=True))
def test_no_reply_of_smtp_is_taken_for_another_protocol(reply):
    assert spoken_by(reply) is None


@pytest.mark.parametrize(
    ("port", "known"), [(80, True), (443, True), (587, False), (25, False), (None, False), (0, False)]
)
def test_ports_of_web_servers(port, known):
    assert (service_of_port(port) is not None) is known


@pytest.mark.parametrize(
    ("keywords", "masked"),
    [
        ({"XXXXXXXA": ""}, True),
        ({"xxxxxxxb": "", "SIZE": "1"}, True),
        ({"XXXXXXXA": "", "STARTTLS": ""}, False),
        ({"XXXXXXX": ""}, False),
        ({"XXXXXXXXA": "", "XCLIENT": ""}, False),
        ({}, False),
    ],
)
def test_a_masked_offer(keywords, masked):
    assert masks_starttls(Extensions(keywords)) is masked


def test_the_sentence_names_the_right_ports():
    sentence = not_smtp("mail.example.com:22", "SSH")
    assert (
        sentence.startswith("mail.example.com:22 speaks SSH, not SMTP")
        and "587" in sentence
        and "465" in sentence
    )
