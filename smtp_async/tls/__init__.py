"""TLS: when it starts, trusted certificates, facts about the connection, and errors that explain a failure."""

from .certificate import Certificate
from .context import (
    OpportunisticContext,
    Security,
    default_port,
    legacy_context,
    make_context,
    reference_name,
    resolve_security,
)
from .info import ConnectionInfo
from .offers import TLSProfile
from .options import PreSharedKey, TLSOptions, TrustOptions
from .verify import explain, hint_for_silence, judge, looks_like_tls, secure

__all__ = [
    "Certificate",
    "ConnectionInfo",
    "OpportunisticContext",
    "PreSharedKey",
    "Security",
    "TLSOptions",
    "TLSProfile",
    "TrustOptions",
    "default_port",
    "explain",
    "hint_for_silence",
    "judge",
    "legacy_context",
    "looks_like_tls",
    "make_context",
    "reference_name",
    "resolve_security",
    "secure",
]
