"""Many processes share a spool: each message is delivered once."""

from pathlib import Path

from tests.torture.crowd import empty
from tests.torture.template import Template

#: `make torture` takes 20,000.
MESSAGES = 1_000


async def test_eight_processes_drain_a_spool_while_four_fill_it(tmp_path: Path) -> None:
    async with Template() as template:
        account = await empty(template, tmp_path / "crowd", messages=MESSAGES, processes=8)
    account.demand()
    assert (account.acknowledged, account.duplicates, account.deaths) == (MESSAGES, 0, 0)
