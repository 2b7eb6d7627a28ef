"""Real mail servers, started by the tests on free ports of 127.0.0.1 and stopped with them.

Each module holds one server as a small class: its ports, its paths, what it delivered, what it logged.
The fixtures in `tests/conftest.py` start each once per test session. Every server refuses the same things,
so that one scenario can be run against all of them:

===========================  =========================================
mail for ``…@lab.test``      accepted, and delivered to a Maildir
mail for ``…@reject.test``   refused for good at RCPT
mail for ``…@defer.test``    refused for now at RCPT
``refused@sender.test``      refused for good at MAIL
``REFUSE-THIS-CONTENT``      in the content: refused at end of data
more than 10 MiB             refused at MAIL by SIZE, or at end of data
===========================  =========================================

Dovecot, which delivers mail and does not judge it, knows only its own two users and one whose mailbox is
full.
"""

USER = "user"
PASSWORD = "secret"

REFUSED_SENDER = "refused@sender.test"
REFUSED_CONTENT = "REFUSE-THIS-CONTENT"
SIZE_LIMIT = 10 * 1024 * 1024
