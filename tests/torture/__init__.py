"""Torture of the spool and its processor: processes that die, disks that fail, many workers on one directory.

`letters` makes the messages; everything about a message follows from its number. `recorder` is the server, which
records what was delivered. `faults` makes system calls fail or kill, and `deadly_database` statements. `template` is a
process that has imported everything and forks the processes that are to die, which is fifty times cheaper than starting
them; `children` is what those do. `ledger` checks what was acknowledged, started and delivered against the promises.
`points` kills at every step, `storm` at random, and `power` takes the power away, from what a `tape` recorded;
``python -m tests.torture`` runs all for a long time.

No process dies in the other half: `scenarios` is the table of ways to send mail, `wire` cuts connections, cancels
callers and lets deadlines pass, `books` compares what the callers were told with what the server accepted, and
`every_point` does so everywhere. `soak` sends for a long time while calls fail.
"""
