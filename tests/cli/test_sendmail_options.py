"""The command line of `sendmail`."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtp_async import DSN, Notify, Return
from smtp_async.cli.sendmail_options import Mode, SendmailOptions, parse_sendmail
from smtp_async.errors import InvalidArgument

CALLS = {
    # cron of Debian, cronie, PHP, git send-email, mutt, logwatch, mdadm
    "-i -FCronDaemon -B8BITMIME -oem root": SendmailOptions(
        recipients=("root",), dots=True, name="CronDaemon"
    ),
    "-FCronDaemon -i -odi -oem -oi -t -f root": SendmailOptions(
        header=True, dots=True, name="CronDaemon", sender="root"
    ),
    "-t -i": SendmailOptions(header=True, dots=True),
    "-t -i -fann@example.com": SendmailOptions(header=True, dots=True, sender="ann@example.com"),
    "-i -f ann@example.com bob@example.org": SendmailOptions(
        recipients=("bob@example.org",), dots=True, sender="ann@example.com"
    ),
    "-oem -oi -f <> -- bob@example.org": SendmailOptions(
        recipients=("bob@example.org",), dots=True, sender="<>"
    ),
    "-bs": SendmailOptions(mode=Mode.SMTP),
    "-ti": SendmailOptions(header=True, dots=True),
    "-oi -oee -t -B 8BITMIME -v -G -n -m": SendmailOptions(header=True, dots=True),
    "-N success,delay -R hdrs -V id7 x@y.org": SendmailOptions(
        recipients=("x@y.org",), dsn=DSN(notify=Notify.SUCCESS | Notify.DELAY), ret=Return.HDRS, envid="id7"
    ),
    "-Nnever -O DeliveryMode=b -X /dev/null -p SMTP:h -d0.1 -o7 x": SendmailOptions(
        recipients=("x",), dsn=DSN(notify=Notify.NEVER)
    ),
    "-bm -r ann x": SendmailOptions(sender="ann", recipients=("x",)),
    "-bp": SendmailOptions(mode=Mode.QUEUE),
    "--account work --spool=/s -C c.toml x": SendmailOptions(
        account="work", spool="/s", config=Path("c.toml"), recipients=("x",)
    ),
    "--help": SendmailOptions(mode=Mode.HELP),
    "--version": SendmailOptions(mode=Mode.VERSION),
    # An option behind a recipient is a recipient.
    "bob -X /tmp/log": SendmailOptions(recipients=("bob", "-X", "/tmp/log")),
    "-i -- -t": SendmailOptions(recipients=("-t",), dots=True),
}


@pytest.mark.parametrize("line", CALLS)
def test_calls_of_real_programs(line):
    assert parse_sendmail(line.split()) == CALLS[line]


def test_names_that_say_what_to_do():
    assert parse_sendmail([], "/usr/bin/mailq").mode is Mode.QUEUE
    assert parse_sendmail([], "newaliases").mode is Mode.NOTHING
    assert parse_sendmail([], "/usr/sbin/sendmail").mode is Mode.MESSAGE


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("-z", "no option -z"),
        ("--accuont x", "no option --accuont"),
        ("-f", "-f needs a value"),
        ("--spool", "--spool needs a value"),
        ("-bd", "-bd is not supported"),
        ("-q30m", "smtp-async process"),
        ("-R some", "full or hdrs"),
        ("-N sometimes", "SOMETIMES"),
    ],
)
def test_what_is_refused(line, error):
    with pytest.raises(InvalidArgument, match=error):
        parse_sendmail(line.split())


@settings(max_examples=50)
@given(st.lists(st.text(min_size=1, max_size=6)))
def test_any_command_line_is_understood_or_refused(arguments):
    try:
        options = parse_sendmail(arguments)
    except InvalidArgument:
        return
    assert set(options.recipients) <= set(arguments)
