"""Send one message from a script without an event loop, and say what became of each recipient.

    python examples/submit.py smtp://ann:secret@smtp.example.com \
        --from ann@example.com --to bob@example.org --subject Minutes --attach minutes.pdf < text

The exit status is 0 if every recipient was accepted, 1 if some were refused, and 75 (EX_TEMPFAIL of sysexits.h) if it
is worth another try.
"""

import argparse
import sys
from pathlib import Path

from smtp_async import Message, Receipt, SMTPError, send_blocking

TEMPORARY = 75


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Send one message; the text is read from standard input.")
    parser.add_argument("url", help="the server, such as smtps://user:password@smtp.example.com")
    parser.add_argument("--from", dest="sender", required=True)
    parser.add_argument("--to", action="append", required=True)
    parser.add_argument("--subject", default="")
    parser.add_argument("--attach", action="append", type=Path, default=[])
    return parser.parse_args()


def main() -> int:
    given = arguments()
    message = Message(sender=given.sender, to=given.to, subject=given.subject, text=sys.stdin.read())
    for path in given.attach:
        message.attach(path)
    try:
        receipt = send_blocking(message, url=given.url)
    except SMTPError as error:
        print(error, file=sys.stderr)
        # Errors in the arguments have none: nothing was tried.
        if known := Receipt.of(error):
            report(known)
        return TEMPORARY if error.temporary else 1
    report(receipt)
    return 1 if receipt.refused else 0


def report(receipt: Receipt) -> None:
    for verdict in receipt.verdicts:
        print(f"{verdict.recipient.address}: {verdict.outcome.value} {verdict.reply or ''}".rstrip())


if __name__ == "__main__":
    sys.exit(main())
