"""Takes messages of any kind, and makes of each a `Mail` for sending; `message/` is where messages are written."""
