"""SMTP and LMTP without I/O: bytes in, outcomes out."""
