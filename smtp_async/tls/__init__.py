"""TLS: when it starts, what is trusted, who was met, and errors that say what was wrong."""

from .certificate import Certificate
from .context import (
    OpportunisticContext,
    Security,
    TLSOptions,
    TrustOptions,
    default_port,
    make_context,
    reference_name,
    resolve_security,
)
from .info import ConnectionInfo
from .verify import explain, hint_for_silence, judge, looks_like_tls, secure

__all__ = [
    "Certificate",
    "ConnectionInfo",
    "OpportunisticContext",
    "Security",
    "TLSOptions",
    "TrustOptions",
    "default_port",
    "explain",
    "hint_for_silence",
    "judge",
    "looks_like_tls",
    "make_context",
    "reference_name",
    "resolve_security",
    "secure",
]
