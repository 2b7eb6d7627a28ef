"""What is public: the names, and that errors and receipts travel between processes."""

import copy
import inspect
import pickle
import subprocess
import sys
from typing import Any

import pytest

import smtp_async
from smtp_async import (
    DSN,
    Address,
    DeliverBy,
    EnhancedCode,
    Envelope,
    Extensions,
    Kind,
    Notify,
    Outcome,
    Receipt,
    Recipient,
    Reply,
    Return,
    SendOptions,
    Verdict,
    errors,
    events,
)

PUBLIC = [
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


def test_the_public_names_are_these() -> None:
    assert sorted(smtp_async.__all__) == sorted(PUBLIC)


def test_an_import_loads_no_module_before_a_name_is_used() -> None:
    program = (
        "import sys, smtp_async; before = set(sys.modules); smtp_async.Address; smtp_async.errors; "
        "print(*sorted(name for name in before if name.startswith('smtp_async.')))"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout.split() == ["smtp_async.about"]


def test_a_first_program_loads_no_archives_and_no_handlers_of_logs() -> None:
    program = "import sys; from smtp_async import Message, SMTPClient; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert not {"tempfile", "shutil", "pickle", "logging.handlers"} & {*found.stdout.split()}


def test_a_name_that_is_not_public_is_missing() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Postman'"):
        getattr(smtp_async, "Postman")  # noqa: B009
    assert set(PUBLIC) <= set(dir(smtp_async))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    thing = getattr(smtp_async, name)
    if inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing):
        assert inspect.getdoc(thing)


@pytest.mark.parametrize("module", [smtp_async, errors, events])
def test_star_imports_give_what_all_says(module: Any) -> None:
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name)


def test_every_error_class_is_exported() -> None:
    classes = {
        name
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, Exception) and thing.__module__ == errors.__name__
    }
    assert classes == set(errors.__all__)


# --- pickling ------------------------------------------------------------------------------------------------

REPLY = Reply(550, (b"5.1.1 nobody", b"here"))
BOB, EVE = Recipient("Bob <bob@example.org>"), Recipient("eve@example.org", Kind.BCC)


def receipt(error: errors.SMTPError | None = None) -> Receipt:
    verdicts = (Verdict(BOB, Outcome.ACCEPTED, REPLY), Verdict(EVE, Outcome.REFUSED, REPLY))
    return Receipt(verdicts, REPLY, error, "<1@example.com>", 1234)


def make(cls: type[errors.SMTPError]) -> errors.SMTPError:
    if cls is errors.FeatureUnavailable:
        return errors.FeatureUnavailable("no", needs="smtp-async[cli]")
    if cls in (errors.SocketError, errors.ResolveError):
        return cls("no", errno=111)
    return cls("no", reply=REPLY, stage="RCPT", receipt=receipt())


CLASSES = sorted((getattr(errors, name) for name in errors.__all__), key=lambda cls: cls.__name__)
COPIES = {
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_travels(cls: type[errors.SMTPError], how: str) -> None:
    error = make(cls)
    error.__cause__ = ConnectionResetError(104, "reset")
    twin = COPIES[how](error)
    assert type(twin) is cls
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)
    assert (twin.code, twin.temporary, twin.connection_usable) == (
        error.code,
        error.temporary,
        error.connection_usable,
    )
    assert repr(twin.__cause__) == repr(error.__cause__)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize(
    "value",
    [
        receipt(),
        receipt()._replace(error=errors.NotSent("no", receipt=receipt())),
        Verdict(BOB, Outcome.UNKNOWN),
        BOB,
        Address.parse("Ann <ann@example.com>"),
        Address.parse("grüße@bücher.example"),
        Envelope("ann@example.com", [BOB, EVE]),
        Envelope(None, [BOB]),
        REPLY,
        EnhancedCode(5, 1, 1),
        Extensions({"SIZE": "100", "AUTH": "PLAIN"}, domain="mx.test"),
        Outcome.PARTIAL,
        DSN(notify=Notify.SUCCESS | Notify.DELAY, orcpt="grüße@bücher.example"),
        Recipient("bob@example.org", name="Bob", dsn=DSN(notify=Notify.NEVER)),
        Return.HDRS,
        DeliverBy(seconds=60, trace=True),
        # One kind only, because a set of several has no fixed order.
        SendOptions(
            must_accept=frozenset({Kind.TO}),
            ret=Return.FULL,
            envid="a 1",
            auth="ann@example.com",
            mt_priority=3,
        ),
    ],
    ids=repr,
)
def test_values_travel(value: Any, how: str) -> None:
    twin = COPIES[how](value)
    if isinstance(value, Receipt) and value.error is not None:
        assert (twin.verdicts, repr(twin.error)) == (value.verdicts, repr(value.error))
    else:
        assert twin == value
    assert repr(twin) == repr(value)
