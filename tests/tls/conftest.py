"""What meets a server here runs on asyncio's loop and on uvloop."""

from tests.transport.conftest import run

__all__ = ["run"]
