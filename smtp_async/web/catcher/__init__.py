"""The mail catcher: an SMTP server that keeps what it gets, and a page to look at it."""
