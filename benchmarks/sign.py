"""What a signature costs: CPU above an unsigned message, against others; how long it holds the event loop; memory.

A message of 1 KiB is made and signed in one process, threads included: with DKIM against dkimpy, with S/MIME against
the PKCS #7 of cryptography, which is given the finished message. The loop is watched while 100 messages that RSA
signs are on their way to smtp-sink on this machine; then a path of 1 GiB is signed and sent.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from benchmarks.race import Answer, Goal, Table
from benchmarks.rivals import Unavailable
from benchmarks.servers import sink
from benchmarks.watch import Watch
from smtp_async import (
    DKIM,
    ClientOptions,
    Message,
    PoolLimits,
    Security,
    SendOptions,
    SMIMEEncryption,
    SMIMESignature,
    SMTPClient,
    Timeouts,
)
from smtp_async.mail.coerce import PendingMail, to_mail

_MIB = 2**20
_TEXT = "Hello Bob, your order has left our house and will be with you tomorrow.\n" * 12
_RSA = rsa.generate_private_key(65537, 2048)
_ED25519 = ed25519.Ed25519PrivateKey.generate()
_numbers = itertools.count()


def _certificate() -> x509.Certificate:
    """Return a certificate for the author of the messages."""
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Ann")]), datetime.now(UTC)
    return (
        x509.CertificateBuilder(name, name, _RSA.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.RFC822Name("ann@example.com")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .sign(_RSA, SHA256())
    )


_ANN = _certificate()
_KINDS = {
    "Ed25519": SendOptions(sign=DKIM("example.com", "e", _ED25519)),
    "RSA-2048": SendOptions(sign=DKIM("example.com", "r", _RSA)),
    "S/MIME, RSA-2048": SendOptions(sign=SMIMESignature(_ANN, _RSA)),
    "S/MIME, encrypted": SendOptions(sign=SMIMEEncryption([_ANN])),
}


def run(*, quick: bool = False) -> Answer:
    """Measure in turns.

    Raises:
        Unavailable: dkimpy is not installed, or there is no smtp-sink.
    """
    try:
        import dkim
    except ImportError as error:
        raise Unavailable("dkimpy is not installed") from error
    cost = asyncio.run(_costs(dkim, 5 if quick else 21))
    with sink() as server, tempfile.TemporaryDirectory(prefix="smtp-async-sign-") as folder:
        stalls = asyncio.run(_watched(server.host, server.port, _small()))
        size = (128 if quick else 1024) * _MIB
        growth = asyncio.run(_watched(server.host, server.port, [_large(Path(folder), size)]))
    rows = [(name, f"{seconds * 1e6:.0f}") for name, seconds in cost.items()]
    loop = [
        ("100 messages by RSA: the loop was held for", f"{stalls['held'] * 1e3:.1f} ms"),
        ("100 messages by RSA: longest stall, by the clock", f"{stalls['longest'] * 1e3:.1f} ms"),
        (f"{size // _MIB} MiB from a path: growth", f"{growth['growth'] / _MIB:.1f} MiB"),
    ]
    goals = [
        Goal("Ed25519: CPU above unsigned, µs", cost["Ed25519"] * 1e6, 150, at_most=True),
        Goal("RSA-2048: CPU above unsigned, µs", cost["RSA-2048"] * 1e6, 1200, at_most=True),
        Goal("Ed25519: × dkimpy", cost["Ed25519, dkimpy"] / cost["Ed25519"], 2.0),
        Goal("RSA-2048: × dkimpy", cost["RSA-2048, dkimpy"] / cost["RSA-2048"], 2.0),
        Goal("100 messages by RSA: the loop is held, ms", stalls["held"] * 1e3, 5.0, at_most=True),
        Goal("a large path: growth of memory, MiB", growth["growth"] / _MIB, 16.0, at_most=True),
    ]
    notes = ["CPU is that of the process, of a message of 1 KiB less that of the same message unsigned."]
    return Answer(
        [Table("CPU of a signature", ("key", "µs"), rows), Table("Sending", ("", ""), loop)], goals, notes
    )


# --- CPU -----------------------------------------------------------------------------------------------------


async def _costs(dkim: Any, rounds: int) -> dict[str, float]:
    """Return the seconds of CPU that each kind of signature takes above an unsigned message."""
    found: dict[str, list[float]] = {}
    await _rendered(_KINDS["RSA-2048"], 10)
    for _ in range(rounds):
        unsigned = await _rendered(SendOptions(), 200)
        for name, options in _KINDS.items():
            found.setdefault(name, []).append(await _rendered(options, 200) - unsigned)
        data = _message().content().join()
        for name, sign in _rivals(dkim).items():
            gc.collect()
            begin = time.process_time()
            for _ in range(20):
                sign(data)
            found.setdefault(name, []).append((time.process_time() - begin) / 20)
    return {name: median(times) for name, times in found.items()}


async def _rendered(options: SendOptions, count: int) -> float:
    gc.collect()
    begin = time.process_time()
    for _ in range(count):
        mail = to_mail(_message(), options)
        if isinstance(mail, PendingMail):
            mail = await mail.read()
        mail.content().join()
    return (time.process_time() - begin) / count


def _rivals(dkim: Any) -> dict[str, Callable[[bytes], bytes]]:
    pem = _RSA.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    import base64

    seed = base64.b64encode(_ED25519.private_bytes_raw())
    c = (b"relaxed", b"relaxed")
    return {
        "Ed25519, dkimpy": lambda data: dkim.sign(
            data, b"e", b"example.com", seed, canonicalize=c, signature_algorithm=b"ed25519-sha256"
        ),
        "RSA-2048, dkimpy": lambda data: dkim.sign(data, b"r", b"example.com", pem, canonicalize=c),
        "S/MIME, RSA-2048, cryptography": _signed_by_cryptography,
    }


def _signed_by_cryptography(data: bytes) -> bytes:
    builder = pkcs7.PKCS7SignatureBuilder().set_data(data).add_signer(_ANN, _RSA, SHA256())
    return builder.sign(Encoding.SMIME, [pkcs7.PKCS7Options.DetachedSignature])


def _message() -> Message:
    number = next(_numbers)
    return Message(
        sender="ann@example.com", to=f"bob{number}@example.org", subject=f"Order {number}", text=_TEXT
    )


# --- sending -------------------------------------------------------------------------------------------------


def _small() -> list[Message]:
    return [_message() for _ in range(100)]


def _large(folder: Path, size: int) -> Message:
    path = folder / "large.bin"
    block = os.urandom(_MIB)
    with path.open("wb") as file:
        for _ in range(size // _MIB):
            file.write(block)
    message = _message()
    message.attach(path, filename="large.bin")
    return message


async def _watched(host: str, port: int, messages: list[Message]) -> dict[str, Any]:
    """Send all at once, signed by RSA, after a few that load what is loaded once; return what the loop went through.

    `held` is the most CPU that the thread of the loop took between two of its turns, in seconds: unlike the delay of a
    task, it does not depend on what else runs on the machine.
    """
    options = ClientOptions(
        send=_KINDS["RSA-2048"], pool=PoolLimits(max_connections=4), timeouts=Timeouts(send=None)
    )
    async with SMTPClient(host, port, security=Security.PLAINTEXT, options=options) as client:
        await asyncio.gather(*[client.send(_message()) for _ in range(20)])
        gc.collect()
        held = _Held()
        turning = asyncio.create_task(held.turn())
        async with Watch() as watch:
            await asyncio.gather(*[client.send(message) for message in messages])
        turning.cancel()
        return {**watch.told(), "held": held.most}


class _Held:
    """The most CPU of the loop's thread between two turns of the loop."""

    most = 0.0

    async def turn(self) -> None:
        """Run in every turn, until cancelled."""
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.most, before = max(self.most, now - before), now
