"""Put a message for each recipient into a queue, and deliver the queue.

    python examples/queue_mail.py smtp://ann:secret@smtp.example.com spool \
        --from ann@example.com --to bob@example.org --to carla@example.org --subject News < text

A message is on the disk when `put` returns. A run delivers what is due: also what earlier runs left, because the server
could not be reached or refused a recipient for now. Without a recipient nothing is put, and the queue is delivered.
"""

import argparse
import asyncio
import sys

from smtp_async import DirectorySpool, Message, QueueProcessor, QueueReport, SMTPClient, SMTPError
from smtp_async.events import Direction, PITrail

MARKS = {Direction.CLIENT: ">", Direction.SERVER: "<", Direction.INFO: "="}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Queue a message for each recipient, and deliver the queue; the text is read from standard input."
    )
    parser.add_argument("url", help="the server, such as smtps://user:password@smtp.example.com")
    parser.add_argument("spool", help="the directory of the queue; it is made if it does not exist")
    parser.add_argument("--from", dest="sender")
    parser.add_argument("--to", action="append", default=[])
    parser.add_argument("--subject", default="")
    parser.add_argument("--keep-sent", action="store_true", help="keep delivered messages as .sent")
    given = parser.parse_args()
    if given.to and not given.sender:
        parser.error("--from is missing")
    # Before the event loop runs, because it would stand still while somebody types.
    given.text = sys.stdin.read() if given.to else ""
    return given


async def main(given: argparse.Namespace) -> int:
    async with DirectorySpool(given.spool, create=True) as spool:
        for recipient in given.to:
            message = Message(sender=given.sender, to=recipient, subject=given.subject, text=given.text)
            print("queued", await spool.put(message))
        async with SMTPClient.from_url(given.url) as client:
            client.on(PITrail, show)
            report = await QueueProcessor(spool, client, keep_sent=given.keep_sent).run_once()
    return conclude(report)


def show(line: PITrail) -> None:
    """Print a line of the dialogue; passwords are masked in it."""
    print(MARKS[line.direction], line.message)


def conclude(report: QueueReport) -> int:
    print(f"{len(report.sent)} sent, {len(report.deferred)} deferred, {len(report.failed)} failed")
    for job in (*report.deferred, *report.failed, *report.unreadable):
        print(job, file=sys.stderr)
    if report.error is not None:
        print(report.error, file=sys.stderr)
    return 0 if report else 1


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(arguments())))
    except SMTPError as error:
        sys.exit(str(error))
