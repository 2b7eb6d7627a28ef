"""The test kit: servers that misbehave as a test tells them, cut connections, cancellation at every await.

    from smtp_async.testing import RecordingSink, ScriptedServer, close, default, reply

- `ScriptedServer`: a strict SMTP or LMTP server with a script of deviations (`smtp_async.testing.server`);
- `RecordingSink`: a server that accepts everything, for applications that check what they sent;
- `RecordingClient`: an `SMTPClient` without a network, for unit tests, and `Outbox`: the messages that were sent;
- `CutProxy`: cuts a connection after any byte, in either direction, by FIN, RST or silence;
- `cancellations`: runs a scenario repeatedly, cancelled at its first, second, … await;
- `ServerThread`: one of these servers in a thread of its own, for tests without an event loop;
- `MemorySpool`: a spool without a disk, and `SpoolContract`: the tests that every spool passes;
- `MechanismContract`: the tests that every SASL mechanism passes, for one of an application's own;
- `StreamContract` and `UpgradeContract`: the tests that every transport passes;
- the pytest fixtures `mail_server`, `outbox` and `scripted_server`: `pytest_plugins = ["smtp_async.testing.plugin"]`.
"""

from .contracts import SpoolContract
from .cutproxy import Cut, CutManner, CutProxy, Direction, Link
from .faults import CancelledRun, CancelManner, CancelMoment, cancellations, run_cancelled_at
from .mechanism_contract import MechanismContract
from .mechanisms import Mechanism
from .memory import MemorySpool
from .outbox import Outbox
from .recording_client import RecordingClient
from .records import ConnectionLog, ReceivedLine, ReceivedMessage
from .script import (
    Action,
    Rule,
    Step,
    close,
    cut,
    default,
    delay,
    drip,
    endless,
    flush,
    raw,
    reply,
    reset,
    stall,
    swallow,
    wait_input,
)
from .server import ScriptedServer
from .sink import RecordingSink
from .stream_contract import StreamContract
from .thread import ServerThread
from .upgrade_contract import UpgradeContract

__all__ = [
    "Action",
    "CancelManner",
    "CancelMoment",
    "CancelledRun",
    "ConnectionLog",
    "Cut",
    "CutManner",
    "CutProxy",
    "Direction",
    "Link",
    "Mechanism",
    "MechanismContract",
    "MemorySpool",
    "Outbox",
    "ReceivedLine",
    "ReceivedMessage",
    "RecordingClient",
    "RecordingSink",
    "Rule",
    "ScriptedServer",
    "ServerThread",
    "SpoolContract",
    "Step",
    "StreamContract",
    "UpgradeContract",
    "cancellations",
    "close",
    "cut",
    "default",
    "delay",
    "drip",
    "endless",
    "flush",
    "raw",
    "reply",
    "reset",
    "run_cancelled_at",
    "stall",
    "swallow",
    "wait_input",
]
