"""`smtp-async providers`: the list, one of them, and what a wrong name gets."""

import json

from smtp_async import providers


def test_the_list_has_a_line_for_each(shell):
    done = shell("providers")
    lines = done.stdout.splitlines()
    assert done.exit_code == 0
    assert len(lines) == len(providers())
    assert "gmail smtp.gmail.com:587 Gmail" in lines


def test_one_is_shown_with_its_limits_and_sources(shell):
    done = shell("providers office365")
    assert done.exit_code == 0
    assert "Microsoft 365: smtp.office365.com:587, starttls" in done.stdout
    assert "Connections at once: 3" in done.stdout and "Messages per minute: 30" in done.stdout
    assert "Source: https://learn.microsoft.com/" in done.stdout
    assert "Tokens: https://login.microsoftonline.com/common/oauth2/v2.0/token" in done.stdout


def test_json_holds_the_same(shell):
    one = json.loads(shell("providers sendgrid --json").stdout)
    assert (one["name"], one["username"], one["security"]) == ("sendgrid", "apikey", "starttls")
    assert len(json.loads(shell("providers --json").stdout)) == len(providers())


def test_a_wrong_name_suggests_a_near_one(shell):
    done = shell("providers gmial")
    assert done.exit_code == 2
    assert "did you mean gmail" in done.output


def test_a_terminal_gets_a_table(monkeypatch, shell):
    monkeypatch.setattr("smtp_async.cli.output.Output.is_terminal", property(lambda self: True))
    done = shell("providers")
    assert done.exit_code == 0 and "smtp.gmail.com:587" in done.stdout
