"""Where a spool is: paths, URLs, and names that show no password."""

import os
from pathlib import Path

import pytest

from smtp_async import DirectorySpool, PostgresSpool
from smtp_async.cli.spools import is_url, name_of, open_database, open_spool
from smtp_async.errors import FileError, InvalidArgument

SECRET = "top-secret"
URL = f"postgresql://ann:{SECRET}@db.example.com:5433/app"


async def test_a_path_is_a_directory(tmp_path: Path) -> None:
    with pytest.raises(FileError):
        open_spool(str(tmp_path / "spool"))
    for create in (True, False):
        async with open_spool(str(tmp_path / "spool"), create=create) as spool:
            assert isinstance(spool, DirectorySpool)


async def test_a_url_is_a_database() -> None:
    async with open_spool(URL) as spool:
        assert isinstance(spool, PostgresSpool)
        assert repr(spool) == "<PostgresSpool db.example.com:5433/app schema smtp_async>"
    async with open_database(f"{URL}?schema=mail&pooler=1&sslmode=require") as spool:
        assert repr(spool) == "<PostgresSpool db.example.com:5433/app schema mail>"


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://ann:{SECRET}@db/app",
        f"postgresql://ann:{SECRET}@db:port/app",
        f"postgresql://ann:{SECRET}@[db/app",
        f"{URL}?schema={SECRET}-",
        f"https://ann:{SECRET}@db/",
    ],
)
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        open_spool(url)
    assert SECRET not in str(caught.value).replace(f"{SECRET}-", "")
    assert is_url(url)


def test_names_are_the_same_however_a_place_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "spool")
    assert {name_of(place) for place in ("spool", "./spool/", "link", str(tmp_path / "spool"))} == {
        os.path.realpath("spool")
    }
    assert (
        name_of(URL) == name_of(f"{URL}?schema=smtp_async&pooler=1") == "db.example.com:5433/app/smtp_async"
    )
    assert name_of(f"{URL}?schema=mail") == "db.example.com:5433/app/mail"
    assert not any(is_url(place) for place in ("spool", "/var/spool/a", "./postgresql:", "C:\\spool"))
