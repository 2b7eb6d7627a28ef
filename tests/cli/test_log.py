"""Log records of the library on standard error."""

import logging

from smtp_async.cli.log import log_on
from smtp_async.cli.output import Output


def test_log_records_are_shown_as_sentences(capsys):
    log = logging.getLogger("smtp_async")
    with log_on(Output()):
        log.info("an info is not shown")
        log.warning("the job %s was taken\x1b away", "a")
        try:
            raise LookupError("lost")
        except LookupError:
            log.exception("it raised")
    assert capsys.readouterr().err == "The job a was taken\\x1b away.\nIt raised: LookupError('lost').\n"
