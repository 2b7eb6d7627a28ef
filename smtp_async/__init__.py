"""An asyncio-native SMTP client.

    from smtp_async import Message, SMTPClient

    async with SMTPClient("smtp.example.com", username="ann", password="…") as client:
        receipt = await client.send(Message(sender="ann@example.com", to="bob@example.org",
                                            subject="Hello", text="Hi Bob"))

The public names are those of this module, of `smtp_async.errors`, `smtp_async.events` and `smtp_async.testing`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from .about import __version__, build_info

if TYPE_CHECKING:
    from . import errors, events
    from .auth.credentials import Credentials, Strength, Token, TokenProvider
    from .client.blocking import BlockingClient, send_blocking
    from .client.bulk import SendAll
    from .client.client import SMTPClient
    from .client.diagnose import ServerReport
    from .client.discover import Discovery, FoundServer, discover
    from .client.one_shot import send
    from .client.options import ClientOptions
    from .client.presets import Provider, find_provider, providers
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
    from .message.dkim import DKIM
    from .message.dkim_record import dkim_record
    from .message.sign import ExternalSigner, KeySigner
    from .message.smime import SMIMEEncryption, SMIMESignature
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
    from .protocol.extensions import Extensions
    from .protocol.options import DeliverBy, SendOptions
    from .protocol.states import Stage
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
    from .templates import Templates
    from .tls.certificate import Certificate, KeyUsage
    from .tls.context import Security, legacy_context
    from .tls.identity import Identity
    from .tls.info import ConnectionInfo
    from .tls.offers import TLSProfile
    from .tls.options import PreSharedKey, TLSOptions
    from .tls.problems import ChainProblem, ChainResult, ChainValidation
    from .tls.revocation_options import RevocationOptions, RevocationPolicy, RevocationState, RevocationStatus
    from .tls.stores import CertificateStore
    from .tls.trust import ServerAuthentication, TrustOptions
    from .transport.dial import SocketOptions
    from .transport.mail_servers import SubmissionServer, resolve_mx, resolve_submission
    from .transport.names import AddressFamily
    from .transport.proxy import ProxyAuth, ProxyOptions, ProxyType
    from .transport.proxy_protocol import ProxyProtocol
    from .transport.records import MX, SRV
    from .transport.resolve import DNSMode, DNSOptions, DNSResolver, Resolver
    from .transport.throttle import RateLimits

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
    "Templates",
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
#: Where the public names are defined. A module is loaded when the first of its names is used, because a program that
#: only sends needs neither a queue nor signatures nor key files, and `import smtp_async` should cost next to nothing.
_NAMES: Final = {
    "auth.credentials": ("Credentials", "Strength", "Token", "TokenProvider"),
    "client.blocking": ("BlockingClient", "send_blocking"),
    "client.bulk": ("SendAll",),
    "client.client": ("SMTPClient",),
    "client.diagnose": ("ServerReport",),
    "client.discover": ("Discovery", "FoundServer", "discover"),
    "client.one_shot": ("send",),
    "client.options": ("ClientOptions",),
    "client.presets": ("Provider", "find_provider", "providers"),
    "client.telemetry": ("Telemetry",),
    "connection.route": ("Login",),
    "connection.session": ("Session",),
    "errors": (
        "MessageRefused",
        "NotSent",
        "OutcomeUnknown",
        "RecipientsRefused",
        "SMTPError",
        "SenderRefused",
    ),
    "mail.coerce": ("Raw",),
    "message": ("Attachment", "Importance", "Message", "Priority", "Sensitivity", "XPriority"),
    "message.dkim": ("DKIM",),
    "message.dkim_record": ("dkim_record",),
    "message.sign": ("ExternalSigner", "KeySigner"),
    "message.smime": ("SMIMEEncryption", "SMIMESignature"),
    "model.address": ("Address",),
    "model.dsn": ("DSN", "Notify", "Return"),
    "model.envelope": ("EVERYONE", "Envelope", "Kind", "NOBODY", "Recipient"),
    "model.proxy_response": ("ProxyResponse",),
    "model.receipt": ("Outcome", "Receipt", "Verdict"),
    "model.reply": ("EnhancedCode", "Reply"),
    "model.secret": ("Secret",),
    "model.signing": ("SignAnswer", "SignRequest"),
    "model.timeouts": ("Timeouts",),
    "pool.limits": ("PoolLimits", "PoolStatistics"),
    "processor": (
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
    "protocol.extensions": ("Extensions",),
    "protocol.options": ("DeliverBy", "SendOptions"),
    "protocol.states": ("Stage",),
    "spool": (
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
    "templates": ("Templates",),
    "tls.certificate": ("Certificate", "KeyUsage"),
    "tls.context": ("Security", "legacy_context"),
    "tls.identity": ("Identity",),
    "tls.info": ("ConnectionInfo",),
    "tls.offers": ("TLSProfile",),
    "tls.options": ("PreSharedKey", "TLSOptions"),
    "tls.problems": ("ChainProblem", "ChainResult", "ChainValidation"),
    "tls.revocation_options": (
        "RevocationOptions",
        "RevocationPolicy",
        "RevocationState",
        "RevocationStatus",
    ),
    "tls.stores": ("CertificateStore",),
    "tls.trust": ("ServerAuthentication", "TrustOptions"),
    "transport.dial": ("SocketOptions",),
    "transport.mail_servers": ("SubmissionServer", "resolve_mx", "resolve_submission"),
    "transport.names": ("AddressFamily",),
    "transport.proxy": ("ProxyAuth", "ProxyOptions", "ProxyType"),
    "transport.proxy_protocol": ("ProxyProtocol",),
    "transport.records": ("MX", "SRV"),
    "transport.resolve": ("DNSMode", "DNSOptions", "DNSResolver", "Resolver"),
    "transport.throttle": ("RateLimits",),
}
_HOMES: Final = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in ("errors", "events"):
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    thing = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return thing


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
