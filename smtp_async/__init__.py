"""An asyncio-native SMTP client.

    from smtp_async import Message, SMTPClient

    async with SMTPClient("smtp.example.com", username="ann", password="…") as client:
        receipt = await client.send(Message(sender="ann@example.com", to="bob@example.org",
                                            subject="Hello", text="Hi Bob"))

The public names are those of this module, of `smtp_async.errors`, `smtp_async.events` and `smtp_async.testing`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import errors, events
from .about import __version__, build_info
from .auth.credentials import Credentials, Strength, Token, TokenProvider
from .client.blocking import BlockingClient, send_blocking
from .client.bulk import SendAll
from .client.client import SMTPClient
from .client.diagnose import ServerReport
from .client.discover import Discovery, FoundServer, discover
from .client.one_shot import send
from .client.options import ClientOptions
from .client.telemetry import Telemetry
from .connection.route import Login
from .connection.session import Session
from .errors import (
    MessageRefused,
    NotSent,
    OutcomeUnknown,
    RecipientsRefused,
    SenderRefused,
    SMTPError,
)
from .mail.coerce import Raw
from .message import Attachment, Importance, Message, Priority, Sensitivity, XPriority
from .model.address import Address
from .model.dsn import DSN, Notify, Return
from .model.envelope import EVERYONE, NOBODY, Envelope, Kind, Recipient
from .model.proxy_response import ProxyResponse
from .model.receipt import Outcome, Receipt, Verdict
from .model.reply import EnhancedCode, Reply
from .model.secret import Secret
from .model.signing import SignAnswer, SignRequest
from .model.timeouts import Timeouts
from .pool.limits import PoolLimits, PoolStatistics
from .protocol.extensions import Extensions
from .protocol.options import DeliverBy, SendOptions
from .protocol.states import Stage
from .tls.context import Security, legacy_context
from .tls.info import ConnectionInfo
from .tls.offers import TLSProfile
from .tls.options import PreSharedKey, TLSOptions
from .tls.problems import ChainProblem, ChainResult, ChainValidation
from .tls.revocation_options import RevocationOptions, RevocationPolicy, RevocationState, RevocationStatus
from .tls.trust import ServerAuthentication, TrustOptions
from .transport.dial import SocketOptions
from .transport.mail_servers import SubmissionServer, resolve_mx, resolve_submission
from .transport.names import AddressFamily
from .transport.proxy import ProxyAuth, ProxyOptions, ProxyType
from .transport.proxy_protocol import ProxyProtocol
from .transport.records import MX, SRV
from .transport.resolve import DNSMode, DNSOptions, DNSResolver, Resolver
from .transport.throttle import RateLimits

if TYPE_CHECKING:
    from .client.presets import Provider, find_provider, providers
    from .message.dkim import DKIM
    from .message.dkim_record import dkim_record
    from .message.sign import ExternalSigner, KeySigner
    from .message.smime import SMIMEEncryption, SMIMESignature
    from .processor import (
        ProcessorOptions,
        ProcessorStatistics,
        QueueProcessor,
        QueueReport,
        Report,
        ReportOptions,
        RetryPolicy,
        Routes,
        RouteStatistics,
        parse_report,
    )
    from .spool import (
        DirectoryLimits,
        DirectorySpool,
        Entry,
        Lease,
        LeaseHolder,
        PostgresSpool,
        Spool,
        SpoolStatistics,
        serialize,
    )
    from .tls.certificate import Certificate, KeyUsage
    from .tls.identity import Identity
    from .tls.stores import CertificateStore

__all__ = [
    "Address",
    "AddressFamily",
    "Attachment",
    "BlockingClient",
    "Certificate",
    "CertificateStore",
    "ChainProblem",
    "ChainResult",
    "ChainValidation",
    "ClientOptions",
    "ConnectionInfo",
    "Credentials",
    "DKIM",
    "DNSMode",
    "DNSOptions",
    "DNSResolver",
    "DSN",
    "DeliverBy",
    "DirectoryLimits",
    "DirectorySpool",
    "Discovery",
    "EVERYONE",
    "EnhancedCode",
    "Entry",
    "Envelope",
    "Extensions",
    "ExternalSigner",
    "FoundServer",
    "Identity",
    "Importance",
    "KeySigner",
    "KeyUsage",
    "Kind",
    "Lease",
    "LeaseHolder",
    "Login",
    "MX",
    "Message",
    "MessageRefused",
    "NOBODY",
    "NotSent",
    "Notify",
    "Outcome",
    "OutcomeUnknown",
    "PoolLimits",
    "PoolStatistics",
    "PostgresSpool",
    "PreSharedKey",
    "Priority",
    "ProcessorOptions",
    "ProcessorStatistics",
    "Provider",
    "ProxyAuth",
    "ProxyOptions",
    "ProxyProtocol",
    "ProxyResponse",
    "ProxyType",
    "QueueProcessor",
    "QueueReport",
    "RateLimits",
    "Raw",
    "Receipt",
    "Recipient",
    "RecipientsRefused",
    "Reply",
    "Report",
    "ReportOptions",
    "Resolver",
    "RetryPolicy",
    "Return",
    "RevocationOptions",
    "RevocationPolicy",
    "RevocationState",
    "RevocationStatus",
    "RouteStatistics",
    "Routes",
    "SMIMEEncryption",
    "SMIMESignature",
    "SMTPClient",
    "SMTPError",
    "SRV",
    "Secret",
    "Security",
    "SendAll",
    "SendOptions",
    "SenderRefused",
    "Sensitivity",
    "ServerAuthentication",
    "ServerReport",
    "Session",
    "SignAnswer",
    "SignRequest",
    "SocketOptions",
    "Spool",
    "SpoolStatistics",
    "Stage",
    "Strength",
    "SubmissionServer",
    "TLSOptions",
    "TLSProfile",
    "Telemetry",
    "Timeouts",
    "Token",
    "TokenProvider",
    "TrustOptions",
    "Verdict",
    "XPriority",
    "__version__",
    "build_info",
    "discover",
    "dkim_record",
    "errors",
    "events",
    "find_provider",
    "legacy_context",
    "parse_report",
    "providers",
    "resolve_mx",
    "resolve_submission",
    "send",
    "send_blocking",
    "serialize",
]

#: Who only sends does not load what keeps and processes a queue, signs, or reads key files.
_LATER = {
    "DKIM": "message.dkim",
    "ExternalSigner": "message.sign",
    "KeySigner": "message.sign",
    "SMIMEEncryption": "message.smime",
    "SMIMESignature": "message.smime",
    "dkim_record": "message.dkim_record",
    "Certificate": "tls.certificate",
    "CertificateStore": "tls.stores",
    "Identity": "tls.identity",
    "KeyUsage": "tls.certificate",
    **dict.fromkeys(("Provider", "find_provider", "providers"), "client.presets"),
    **dict.fromkeys(
        (
            "DirectoryLimits",
            "DirectorySpool",
            "Entry",
            "Lease",
            "LeaseHolder",
            "PostgresSpool",
            "Spool",
            "SpoolStatistics",
            "serialize",
        ),
        "spool",
    ),
    **dict.fromkeys(
        (
            "ProcessorOptions",
            "ProcessorStatistics",
            "QueueProcessor",
            "QueueReport",
            "Report",
            "ReportOptions",
            "RetryPolicy",
            "RouteStatistics",
            "Routes",
            "parse_report",
        ),
        "processor",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    thing = globals()[name] = getattr(import_module(f".{_LATER[name]}", __name__), name)
    return thing


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
