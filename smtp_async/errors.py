"""Every exception of the library, in one tree.

    SMTPError                        20000
    ├── UsageError (RuntimeError)      211   the call makes no sense here; nothing was sent
    │   ├── AlreadyConnected           104
    │   ├── AlreadyConnecting         1105
    │   ├── NotConnected               212
    │   │   └── ConnectFirst          1117
    │   ├── Busy                       166
    │   ├── SettingInUse               100   also 101 106 107 112 1119
    │   ├── FeatureUnavailable         270   an extra or a newer Python is needed: `needs`
    │   ├── NoSuchJob (LookupError)  20074   the spool has no job of this id
    │   ├── LeaseLost                20075   this worker no longer holds the job
    │   └── InvalidArgument (ValueError) 20001
    │       ├── InvalidAddress       20002
    │       ├── InvalidHeader        20003
    │       ├── TemplateError        20004   a template is missing or wrong, or lacks a value
    │       ├── InvalidHost            102
    │       ├── InvalidPort            116
    │       ├── MissingHost            163
    │       ├── MissingSender          164
    │       ├── MissingRecipient       165
    │       └── TextNotEncodable       434
    ├── FileError (OSError)            302   an attachment or body cannot be opened or read
    ├── CommunicationError (ConnectionError) 162   reading or writing failed
    │   ├── ConnectionLost            1120
    │   ├── SocketError              10004 … 10093, by errno
    │   ├── ResolveError             11001 … 11004
    │   ├── ProxyError                 118
    │   ├── Timeout (TimeoutError)     201
    │   ├── Interrupted                301
    │   └── ProtocolViolation        20010   the server broke the protocol; the connection is closed
    │       ├── ReplyTooLong         20011
    │       └── PlaintextInjected    20012   bytes behind the 220 to STARTTLS: an attack
    ├── TLSError                       276
    │   ├── TLSLibraryError            270
    │   ├── CertificateStoreError      271
    │   ├── CertificateNotFound        272
    │   ├── ClientIdentityError        273
    │   ├── ChainNotFound              274
    │   ├── ChainInvalid               275
    │   ├── HandshakeFailed            276
    │   │   └── WrongTLSMode         20022   TLS on a plain port, or the reverse
    │   ├── CertificateRejected        280
    │   ├── ClientCertificateMissing   281
    │   ├── ServerCertificateMissing   282
    │   ├── EncryptionFailed           283
    │   ├── DecryptionFailed           284
    │   └── StartTLSUnavailable      20020   not offered although required
    ├── CommandRefused                 161   the server refused: `reply`
    │   ├── GreetingRefused            161
    │   ├── HelloRefused               161
    │   ├── StartTLSRefused            161   (a TLSError too)
    │   ├── AuthenticationFailed       161
    │   │   └── TokenRefused         20031   the authorization server issues no token
    │   ├── SenderRefused              161   the outcome of `send`: `receipt`
    │   ├── RecipientsRefused          161
    │   └── MessageRefused             161
    ├── AuthenticationUnavailable    20030   no common mechanism, or none that is safe on this connection
    ├── TokenUnavailable             20032   no token could be fetched now; a later try may succeed
    ├── ExtensionMissing             20040   the message needs an extension that the server does not offer
    │   └── MessageTooLarge          20041
    ├── TooManyRecipients            20042
    ├── SigningError                 20043   the message could not be signed; it was not sent
    │   └── SignerUnavailable        20044   the signer could not be reached; a later try may succeed
    ├── NotSent                      20050   safe to send again
    │   └── QueueFull                20051
    ├── OutcomeUnknown               20060   the end of data was sent, no reply received (RFC 1047)
    └── SpoolError (OSError)         20070   the store of a spool failed
        ├── SpoolFull                20071   no space: nothing was stored
        ├── SpoolUnsafe              20072   other users could write to the directory, or it is no spool
        └── RecordInvalid            20073   a file of the spool is not a job
            └── RecordNewer          20076   the job was written by a later version of this library

Four questions are attributes of every instance:

* `remote`: did the server cause the error (True) or this side (False)?
* `temporary`: may the same call succeed later?
* `connection_usable`: can the connection be used further?
* `reply`, `stage`, `receipt`: the server's reply, the stage of the conversation, the outcome of each recipient.

`code` is a stable number. An error that the components replaced by this library had keeps its number there; others
start at 20000. Operating system and resolver errors become 10004 to 11004, with the system's own number in `errno`.
"""

from __future__ import annotations

import errno as _errno
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, Self

from .model.proxy_response import ProxyResponse
from .model.reply import Reply

__all__ = [
    "AlreadyConnected",
    "AlreadyConnecting",
    "AuthenticationFailed",
    "AuthenticationUnavailable",
    "Busy",
    "CertificateNotFound",
    "CertificateRejected",
    "CertificateStoreError",
    "ChainInvalid",
    "ChainNotFound",
    "ClientCertificateMissing",
    "ClientIdentityError",
    "CommandRefused",
    "CommunicationError",
    "ConnectFirst",
    "ConnectionLost",
    "DecryptionFailed",
    "EncryptionFailed",
    "ExtensionMissing",
    "FeatureUnavailable",
    "FileError",
    "GreetingRefused",
    "HandshakeFailed",
    "HelloRefused",
    "Interrupted",
    "InvalidAddress",
    "InvalidArgument",
    "InvalidHeader",
    "InvalidHost",
    "InvalidPort",
    "LeaseLost",
    "MessageRefused",
    "MessageTooLarge",
    "MissingHost",
    "MissingRecipient",
    "MissingSender",
    "NoSuchJob",
    "NotConnected",
    "NotSent",
    "OutcomeUnknown",
    "PlaintextInjected",
    "ProtocolViolation",
    "ProxyError",
    "QueueFull",
    "RecipientsRefused",
    "RecordInvalid",
    "RecordNewer",
    "ReplyTooLong",
    "ResolveError",
    "SMTPError",
    "SenderRefused",
    "ServerCertificateMissing",
    "SettingInUse",
    "SignerUnavailable",
    "SigningError",
    "SocketError",
    "SpoolError",
    "SpoolFull",
    "SpoolUnsafe",
    "StartTLSRefused",
    "StartTLSUnavailable",
    "TLSError",
    "TLSLibraryError",
    "TemplateError",
    "TextNotEncodable",
    "Timeout",
    "TokenRefused",
    "TokenUnavailable",
    "TooManyRecipients",
    "UsageError",
    "WrongTLSMode",
]


_OS_ERROR: Final = ("errno", "strerror", "filename", "filename2", "winerror")


class ReceiptLike(Protocol):
    """The members of a `Receipt` that callers read from an error; `Receipt.of(error)` has them all, with their types.

    Attributes:
        outcome: what became of the message, an `Outcome`.
        verdicts: what became of each recipient, each a `Verdict`.
        accepted, refused, unknown, not_sent: the verdicts of that outcome.
        reply: the server's reply that decided.
        error: why the outcome is not ACCEPTED or PARTIAL.
        message_id: the Message-ID.
    """

    @property
    def outcome(self) -> Any: ...
    @property
    def verdicts(self) -> tuple[Any, ...]: ...
    @property
    def accepted(self) -> tuple[Any, ...]: ...
    @property
    def refused(self) -> tuple[Any, ...]: ...
    @property
    def unknown(self) -> tuple[Any, ...]: ...
    @property
    def not_sent(self) -> tuple[Any, ...]: ...
    @property
    def reply(self) -> Reply | None: ...
    @property
    def error(self) -> SMTPError | None: ...
    @property
    def message_id(self) -> str | None: ...


class ValidationLike(Protocol):
    """The members of a `ChainValidation` that callers read from an error or an event.

    Attributes:
        result: the verdict, a `ChainResult`.
        problems: everything that is wrong, a `ChainProblem`.
        status: `"OK"`, or what is wrong, in words.
        log: what was done, one sentence each.
        path: the certificates from the server's own to the last issuer that was found, each a `Certificate`.
    """

    @property
    def result(self) -> Any: ...
    @property
    def problems(self) -> Any: ...
    @property
    def status(self) -> str: ...
    @property
    def log(self) -> tuple[str, ...]: ...
    @property
    def path(self) -> tuple[Any, ...]: ...


class SMTPError(Exception):
    """The base class of every exception of this library.

    Args:
        message: what happened, for a person.
        reply: the server's whole reply, if a reply is the error.
        stage: the stage of the conversation, for example `"MAIL"`.
        receipt: the outcome of each recipient, if a message was being sent.
        code: a number other than that of the class.
    """

    code: int = 20000
    remote: ClassVar[bool] = False
    _temporary: ClassVar[bool] = False
    _usable: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        reply: Reply | None = None,
        stage: str | None = None,
        receipt: ReceiptLike | None = None,
        code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reply = reply
        self.stage = stage
        self.receipt = receipt
        if code is not None:
            self.code = code

    @property
    def temporary(self) -> bool:
        """Whether the same call may succeed later. If there is a reply, its class digit decides."""
        return self.reply.temporary if self.reply is not None else self._temporary

    @property
    def connection_usable(self) -> bool:
        """Whether the connection can be used further. A 421 to any command ends it (RFC 5321 section 3.8)."""
        return self._usable and (self.reply is None or self.reply.code != 421)

    def __str__(self) -> str:
        if self.reply is None:
            return self.message
        return f"{self.message}: {self.reply}" if self.message else str(self.reply)

    def __reduce__(self) -> tuple[Any, ...]:
        state = self.__dict__.copy()
        # `OSError` keeps these outside of `__dict__`.
        state |= {name: getattr(self, name) for name in _OS_ERROR if getattr(self, name, None) is not None}
        return _rebuild, (type(self), state, self.__cause__)

    def copy(self) -> Self:
        """Return a copy. One failure of a connection is raised in many tasks, each with its own traceback."""
        rebuild, args = self.__reduce__()
        twin: Self = rebuild(*args)
        return twin


def _rebuild(cls: type[SMTPError], state: dict[str, Any], cause: BaseException | None) -> SMTPError:
    # `__new__` of the base class that decides the layout; `cls.__new__` may belong to another base.
    base: Any = cls.__base__
    error: SMTPError = base.__new__(cls)
    Exception.__init__(error, state["message"])
    for name, value in state.items():
        setattr(error, name, value)
    if cause is not None:
        # Only if there is one, because setting `__cause__`, even to None, hides the context.
        error.__cause__ = cause
    return error


# --- usage ---------------------------------------------------------------------------------------


class UsageError(SMTPError, RuntimeError):
    """The call is not possible in the present state; nothing was sent."""

    code = 211
    _usable = True


class AlreadyConnected(UsageError):
    """`connect` was called on a session that is connected."""

    code = 104


class AlreadyConnecting(UsageError):
    """`connect` was called while another `connect` is running."""

    code = 1105


class NotConnected(UsageError):
    """The call needs an open connection, and that of the session has ended."""

    code = 212
    _usable = False


class ConnectFirst(NotConnected):
    """The call needs an open connection, and `connect` was never called."""

    code = 1117


class Busy(UsageError):
    """Another task is using this session, or a hook called the client that it observes."""

    code = 166
    _temporary = True


class SettingInUse(UsageError):
    """A setting cannot be changed while connections use it."""

    code = 100
    NUMBERS: ClassVar[Mapping[str, int]] = MappingProxyType(
        {"port": 100, "host": 101, "local_port": 106, "local_address": 107, "max_line_length": 112}
    )

    @classmethod
    def of(cls, setting: str) -> Self:
        """Return the error for `setting`, with its own number."""
        text = f"{setting} cannot be changed while it is in use: make another client"
        return cls(text, code=cls.NUMBERS.get(setting))


class FeatureUnavailable(UsageError, NotImplementedError):
    """A feature needs an extra, a newer Python or another system: `needs` names it."""

    code = 270

    def __init__(self, message: str, *, needs: str) -> None:
        super().__init__(message)
        self.needs = needs


class NoSuchJob(UsageError, LookupError):
    """The spool has no job of this id, or no longer."""

    code = 20074


class LeaseLost(UsageError):
    """This worker no longer holds the job: the lease has ended, or another worker has the job."""

    code = 20075


class InvalidArgument(UsageError, ValueError):
    """An argument is not valid; it was refused before a byte was sent."""

    code = 20001


class InvalidAddress(InvalidArgument):
    """The text is not a mail address of RFC 5321, or would break a command line."""

    code = 20002


class InvalidHeader(InvalidArgument):
    """A header field name or value that would change the structure of the message."""

    code = 20003


class TemplateError(InvalidArgument):
    """A template does not exist, is not valid, or uses a name or an image that it was not given."""

    code = 20004


class InvalidHost(InvalidArgument):
    """The host is the all-zero address, or not a host name."""

    code = 102


class InvalidPort(InvalidArgument):
    """The port is below 1 or above 65535."""

    code = 116


class MissingHost(InvalidArgument):
    """The host is empty."""

    code = 163


class MissingSender(InvalidArgument):
    """The message has no sender."""

    code = 164


class MissingRecipient(InvalidArgument):
    """The message has no recipient."""

    code = 165


class TextNotEncodable(InvalidArgument):
    """The charset cannot express the text, or is unknown."""

    code = 434


class FileError(SMTPError, OSError):
    """A file or stream to be sent cannot be opened or read."""

    code = 302
    _usable = True


# --- the connection ------------------------------------------------------------------------------------------


class CommunicationError(SMTPError, ConnectionError):
    """Reading from or writing to the server failed; the cause is chained."""

    code = 162
    remote = True
    _temporary = True


class ConnectionLost(CommunicationError):
    """The server closed or reset the connection in the middle of a session."""

    code = 1120


class Timeout(CommunicationError, TimeoutError):
    """A stage took longer than its limit in `Timeouts`; `stage` names it."""

    code = 201


class Interrupted(CommunicationError):
    """The operation was stopped from this side, by `abort()` or `close()`."""

    code = 301
    remote = False


class ProxyError(CommunicationError):
    """A proxy refused or failed.

    Attributes:
        proxy: which one, for example `"SOCKS5 proxy proxy.example:1080"`.
        status: the status code of an HTTP proxy, or the reply code of a SOCKS proxy; None if neither was read.
        proxy_response: the whole reply of an HTTP proxy.
        login_refused: whether the proxy wants a login, or refused the one that it got.
    """

    code = 118

    def __init__(
        self,
        message: str = "",
        *,
        proxy: str = "",
        status: int | None = None,
        proxy_response: ProxyResponse | None = None,
        login_refused: bool = False,
        reply: Reply | None = None,
        stage: str | None = None,
        receipt: ReceiptLike | None = None,
    ) -> None:
        super().__init__(message, reply=reply, stage=stage, receipt=receipt)
        self.proxy = proxy
        self.status = proxy_response.status if proxy_response is not None else status
        self.proxy_response = proxy_response
        self.login_refused = login_refused

    @property
    def temporary(self) -> bool:
        """Whether the same call may succeed later; a refused login is refused again."""
        return not self.login_refused


class ProtocolViolation(CommunicationError):
    """The server broke the protocol. Replies can no longer be paired, so the connection is dead."""

    code = 20010
    _temporary = False


class ReplyTooLong(ProtocolViolation):
    """A reply line, a number of lines or a whole reply exceeded its limit."""

    code = 20011


class PlaintextInjected(ProtocolViolation):
    """Bytes followed the 220 to STARTTLS before the handshake: evidence of an attack."""

    code = 20012


class SocketError(CommunicationError):
    """The system refused a socket operation; `errno` is the system's number, `code` the Winsock number."""

    code = 10004

    def __init__(self, message: str = "", *, errno: int | None = None, winerror: int | None = None) -> None:
        # An errno without a Winsock number, ENOENT of a Unix socket for example, has the number of the base class.
        super().__init__(message, code=winerror or SOCKET_CODES.get(errno or 0, CommunicationError.code))
        self.errno = errno

    @classmethod
    def of(cls, error: OSError, message: str) -> SocketError:
        """Return `error` as this class, with `error` as its cause."""
        translated = cls(message, errno=error.errno, winerror=getattr(error, "winerror", None))
        translated.__cause__ = error
        return translated


class ResolveError(CommunicationError):
    """A name could not be resolved; `errno` is the resolver's number, `code` one of 11001 to 11004."""

    code = 11001

    def __init__(self, message: str = "", *, errno: int | None = None, code: int | None = None) -> None:
        super().__init__(message, code=code)
        self.errno = errno

    @property
    def temporary(self) -> bool:
        """Whether the same call may succeed later: only after "try again" (11002)."""
        return self.code == 11002


# --- TLS -----------------------------------------------------------------------------------------------------


class TLSError(SMTPError):
    """TLS could not be set up or broke down.

    Attributes:
        validation: what is wrong with the server's certificates, a `ChainValidation`, if that was the reason.
    """

    code = 276
    remote = True
    validation: ValidationLike | None = None


class TLSLibraryError(TLSError):
    """The TLS library or a feature of it cannot be loaded."""

    code = 270
    remote = False


class CertificateStoreError(TLSError):
    """A certificate file or store cannot be opened."""

    code = 271
    remote = False


class CertificateNotFound(TLSError):
    """The certificate asked for is not in the store."""

    code = 272
    remote = False


class ClientIdentityError(TLSError):
    """The client's key or certificate cannot be used."""

    code = 273
    remote = False


class ChainNotFound(TLSError):
    """No chain leads from the server's certificate to a trusted one."""

    code = 274


class ChainInvalid(TLSError):
    """The server's certificate chain does not verify."""

    code = 275


class HandshakeFailed(TLSError):
    """The TLS handshake ended with an alert, a protocol error, no common version or suite, or the connection's end.

    Attributes:
        cut_off: the connection ended during the handshake, without an alert.
    """

    code = 276
    cut_off: bool = False

    @property
    def temporary(self) -> bool:
        """Whether the same call may succeed later: if the connection ended, as when a server is being restarted."""
        return self.cut_off


class WrongTLSMode(HandshakeFailed):
    """The port expects the other mode: TLS instead of plaintext, or the reverse."""

    code = 20022


class CertificateRejected(TLSError):
    """The server's certificate is for another name, out of date, blocked or refused by the application."""

    code = 280


class ClientCertificateMissing(TLSError):
    """Client authentication was configured without a certificate and key."""

    code = 281
    remote = False


class ServerCertificateMissing(TLSError):
    """The server sent no certificate although one is required."""

    code = 282


class EncryptionFailed(TLSError):
    """The TLS layer failed to encrypt outgoing data."""

    code = 283
    remote = False


class DecryptionFailed(TLSError):
    """The TLS layer failed to decrypt incoming data."""

    code = 284


class StartTLSUnavailable(TLSError):
    """STARTTLS is required and the server does not offer it, or an attacker removed the offer."""

    code = 20020


# --- refusals and outcomes --------------------------------------------------------------------------------------


class CommandRefused(SMTPError):
    """The server refused a command; `reply` is its reply."""

    code = 161
    remote = True
    _usable = True


class GreetingRefused(CommandRefused):
    """The server greeted with a refusal, or with the 221 of a server that closes."""

    _usable = False

    @property
    def temporary(self) -> bool:
        """Whether the same call may succeed later: yes, except after a 5xx."""
        return self.reply is None or not self.reply.permanent


class HelloRefused(CommandRefused):
    """The server refused EHLO, LHLO or HELO."""

    _usable = False


class StartTLSRefused(CommandRefused, TLSError):
    """The server refused STARTTLS although it is required."""

    code = 161
    _usable = False


class AuthenticationFailed(CommandRefused):
    """The server refused the credentials (535) or the mechanism."""

    _usable = False


class TokenRefused(AuthenticationFailed):
    """The authorization server refused to issue a token: consent was withdrawn, or a refresh token is no longer valid.

    A token provider raises it. Like a 535 it is remembered for a while, because asking again changes nothing.
    """

    code = 20031


class SenderRefused(CommandRefused):
    """The envelope sender was refused; the message was not sent."""


class RecipientsRefused(CommandRefused):
    """Recipients were refused, so the message was not sent: see `receipt.refused`."""


class MessageRefused(CommandRefused):
    """The message itself was refused, at DATA or at its end."""


class AuthenticationUnavailable(SMTPError):
    """No mechanism is known to both sides and safe on this connection."""

    code = 20030
    remote = True


class TokenUnavailable(SMTPError):
    """No token could be fetched: the authorization server was not reached, failed, or sent something else.

    A token provider raises it; any other exception of a provider becomes one.
    """

    code = 20032
    remote = True
    _temporary = True


class ExtensionMissing(SMTPError):
    """The message or an option needs an extension that the server does not offer."""

    code = 20040
    remote = True
    _usable = True


class MessageTooLarge(ExtensionMissing):
    """The message is larger than the server's SIZE limit (RFC 1870)."""

    code = 20041


class TooManyRecipients(SMTPError):
    """More recipients than the server takes in one transaction."""

    code = 20042
    remote = True
    _usable = True


class SigningError(SMTPError):
    """A message could not be signed, or with a key that does not fit; it was not sent."""

    code = 20043
    _usable = True


class SignerUnavailable(SigningError):
    """A signer outside of this library, or the DNS record of a key, could not be reached; a later try may succeed."""

    code = 20044
    _temporary = True


class NotSent(SMTPError):
    """The message was not sent: sending it again cannot make a second copy. The cause is chained."""

    code = 20050
    _temporary = True


class QueueFull(NotSent):
    """Too many messages are waiting for a connection (`PoolLimits.max_waiting`)."""

    code = 20051


class OutcomeUnknown(SMTPError):
    """The end of data was sent and no reply received: the message may or may not be delivered (RFC 1047)."""

    code = 20060
    remote = True


# --- the spool -----------------------------------------------------------------------------------------------


class SpoolError(SMTPError, OSError):
    """The store of a spool failed; the cause is chained, `errno` is the system's number."""

    code = 20070
    _temporary = True
    _usable = True

    @classmethod
    def of(cls, error: OSError, message: str) -> Self:
        """Return `error` as this class, with `error` as its cause."""
        translated = cls(f"{message}: {error.strerror or error}")
        translated.errno = error.errno
        translated.__cause__ = error
        return translated


class SpoolFull(SpoolError):
    """The spool has no space left, or not enough for the job: nothing was stored."""

    code = 20071


class SpoolUnsafe(SpoolError):
    """Other users could change the contents of the spool, or the directory is not a spool."""

    code = 20072
    _temporary = False


class RecordInvalid(SpoolError):
    """A file of the spool is not a complete job: it was damaged, or put there by another program."""

    code = 20073
    _temporary = False


class RecordNewer(RecordInvalid):
    """A job was written by a later version of this library; it is left in place for that version."""

    code = 20076


# --- numbers -------------------------------------------------------------------------------------------------

_NAMES: Final = (
    "EINTR 10004 EBADF 10009 EACCES 10013 EPERM 10013 EFAULT 10014 EINVAL 10022 EMFILE 10024 ENFILE 10024 "
    "EWOULDBLOCK 10035 EAGAIN 10035 EINPROGRESS 10036 EALREADY 10037 ENOTSOCK 10038 EDESTADDRREQ 10039 "
    "EMSGSIZE 10040 EPROTOTYPE 10041 ENOPROTOOPT 10042 EPROTONOSUPPORT 10043 ESOCKTNOSUPPORT 10044 "
    "EOPNOTSUPP 10045 EPFNOSUPPORT 10046 EAFNOSUPPORT 10047 EADDRINUSE 10048 EADDRNOTAVAIL 10049 "
    "ENETDOWN 10050 ENETUNREACH 10051 ENETRESET 10052 ECONNABORTED 10053 ECONNRESET 10054 EPIPE 10054 "
    "ENOBUFS 10055 EISCONN 10056 ENOTCONN 10057 ESHUTDOWN 10058 ETOOMANYREFS 10059 ETIMEDOUT 10060 "
    "ECONNREFUSED 10061 ELOOP 10062 ENAMETOOLONG 10063 EHOSTDOWN 10064 EHOSTUNREACH 10065 ENOTEMPTY 10066 "
    "EUSERS 10068 EDQUOT 10069 ESTALE 10070 EREMOTE 10071"
).split()

#: errno → the Winsock number that the replaced components used; a system may lack some of the names.
SOCKET_CODES: Final[Mapping[int, int]] = MappingProxyType(
    {
        getattr(_errno, name): int(number)
        for name, number in zip(_NAMES[::2], _NAMES[1::2], strict=True)
        if hasattr(_errno, name)
    }
)


def status_code(error: SMTPError) -> int:
    """Return the status code of a connection that `error` ended.

    It is the Winsock number, as in `SocketError`, of the system's error that caused `error` (10054 if the server reset
    the connection), or the `code` of `error` without one.
    """
    cause: BaseException | None = error
    while cause is not None:
        # Other errors, those of OpenSSL and of the resolver for example, keep other numbers in `errno`.
        if isinstance(cause, OSError) and type(cause).__module__ == "builtins":
            number = SOCKET_CODES.get(cause.errno or 0)
            if number is not None:
                return number
        cause = cause.__cause__
    return error.code


#: Winsock numbers without an errno; only Windows raises them, as `OSError.winerror`.
WINSOCK_ONLY: Final = (10067, 10091, 10092, 10093)


def _classes(cls: type[SMTPError]) -> list[type[SMTPError]]:
    return [cls, *(c for sub in cls.__subclasses__() for c in _classes(sub))]


def _by_number() -> Mapping[int, type[SMTPError]]:
    table: dict[int, type[SMTPError]] = {}
    for cls in _classes(SMTPError):
        table.setdefault(cls.code, cls)
    table |= {20000: SMTPError, 161: CommandRefused, 276: TLSError, 270: TLSLibraryError}
    table |= {number: SettingInUse for number in (*SettingInUse.NUMBERS.values(), 1119)}
    table |= {number: SocketError for number in (*SOCKET_CODES.values(), *WINSOCK_ONLY)}
    table |= {number: ResolveError for number in (11001, 11002, 11003, 11004)}
    return MappingProxyType(table)


#: The class that raises each number.
BY_NUMBER: Final = _by_number()

if sys.platform == "win32" and not TYPE_CHECKING:  # pragma: no cover
    SOCKET_CODES = MappingProxyType({**SOCKET_CODES, **{n: n for n in range(10004, 10094)}})
