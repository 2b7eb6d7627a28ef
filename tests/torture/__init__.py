"""Torture of the spool and its processor: processes that die, disks that fail, many workers on one directory.

`letters` is the mail, numbered, so that everything about a message can be told from its number. `recorder` is the
server, and the truth about what was delivered. `faults` stands between a spool and the system. `template` is a process
that has everything imported and forks those that are to die, which is fifty times cheaper than to start them; what
they do is in `children`. `ledger` keeps the books: what was acknowledged, begun and delivered, and whether that may be.
`points` kills at every step, `storm` at random; ``python -m tests.torture`` runs both for long.
"""
