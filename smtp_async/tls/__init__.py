"""TLS: when it starts, trusted certificates, facts about the connection, and errors that explain a failure."""

from .certificate import Certificate
from .context import (
    Security,
    UnverifiedContext,
    default_port,
    legacy_context,
    make_context,
    reference_name,
    resolve_security,
)
from .info import ConnectionInfo
from .offers import TLSProfile
from .options import PreSharedKey, TLSOptions
from .problems import ChainProblem, ChainResult, ChainValidation
from .trust import AuthenticateServer, ServerAuthentication, TrustOptions
from .verify import explain, hint_for_silence, looks_like_tls, secure

__all__ = [
    "AuthenticateServer",
    "Certificate",
    "ChainProblem",
    "ChainResult",
    "ChainValidation",
    "ConnectionInfo",
    "PreSharedKey",
    "Security",
    "ServerAuthentication",
    "TLSOptions",
    "TLSProfile",
    "TrustOptions",
    "UnverifiedContext",
    "default_port",
    "explain",
    "hint_for_silence",
    "legacy_context",
    "looks_like_tls",
    "make_context",
    "reference_name",
    "resolve_security",
    "secure",
]
