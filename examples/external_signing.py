"""Send one message with a DKIM signature by a key that this program does not have.

    python examples/external_signing.py smtp://ann:secret@smtp.example.com \
        --from ann@example.com --to bob@example.org --subject News --domain example.com --selector 2026a \
        --signer "ssh vault.example.com openssl dgst -sha256 -sign /etc/dkim.pem" --public-key dkim.pub < text

The signer is any command that reads some octets and writes an RSA signature of them (PKCS #1 v1.5 with SHA-256), as
`openssl dgst -sign` does: on a machine that is locked away, or before a token or a key service. What it is given are
the header and a hash of the body, never the key and never the whole message. Without a valid signature nothing is sent.

The exit status is 0 if the message was accepted, and 75 (EX_TEMPFAIL of sysexits.h) if it is worth another try.
"""

import argparse
import asyncio
import shlex
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from subprocess import CalledProcessError

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from smtp_async import DKIM, ClientOptions, ExternalSigner, Message, SignRequest, SMTPClient, SMTPError

TEMPORARY = 75


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Send one signed message; the text is read from standard input."
    )
    parser.add_argument("url", help="the server, such as smtps://user:password@smtp.example.com")
    parser.add_argument("--from", dest="sender", required=True)
    parser.add_argument("--to", action="append", required=True)
    parser.add_argument("--subject", default="")
    parser.add_argument("--domain", required=True, help="the domain that signs")
    parser.add_argument("--selector", required=True, help="the name of the key in the DNS")
    parser.add_argument("--signer", required=True, help="the command that signs")
    parser.add_argument(
        "--public-key", type=Path, required=True, help="verifies what the signer returns; PEM"
    )
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds that the signer has")
    given = parser.parse_args()
    # Before the event loop runs, because it would stand still while somebody types.
    given.text, given.public_key = sys.stdin.read(), load_pem_public_key(given.public_key.read_bytes())
    return given


class SigningCommand:
    """A command that is started for each signature."""

    def __init__(self, words: list[str]) -> None:
        self._words = words

    async def __call__(self, request: SignRequest) -> bytes:
        """Return the signature of `request.data`; raise if the command fails."""
        # What the command complains of goes to standard error.
        process = await asyncio.create_subprocess_exec(*self._words, stdin=PIPE, stdout=PIPE)
        try:
            signature, _ = await process.communicate(request.data)
        finally:
            # The time is over, or the message was withdrawn.
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise CalledProcessError(process.returncode, self._words)
        return signature


async def main(given: argparse.Namespace) -> None:
    signer = ExternalSigner(
        ask=SigningCommand(shlex.split(given.signer)),
        # The command hashes what it is given.
        hash_outside=True,
        timeout=given.timeout,
        public_key=given.public_key,
    )
    options = ClientOptions(sign=DKIM(given.domain, given.selector, signer))
    message = Message(sender=given.sender, to=given.to, subject=given.subject, text=given.text)
    async with SMTPClient.from_url(given.url, options=options) as client:
        receipt = await client.send(message)
    for verdict in receipt.verdicts:
        print(f"{verdict.recipient.address}: {verdict.outcome.value} {verdict.reply}")


if __name__ == "__main__":
    try:
        asyncio.run(main(arguments()))
    except SMTPError as error:
        print(error, file=sys.stderr)
        sys.exit(TEMPORARY if error.temporary else 1)
