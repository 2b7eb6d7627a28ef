"""A folder of templates, written by a test."""

from collections.abc import Callable
from pathlib import Path

import pytest

from smtp_async import Templates

Write = Callable[..., Templates]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mail"
    made.mkdir()
    return made


@pytest.fixture
def write(folder: Path) -> Write:
    """Write files and return the templates of the folder."""

    def writing(files: dict[str, str | bytes], **options: object) -> Templates:
        for name, contents in files.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        return Templates(folder, **options)  # type: ignore[arg-type]  # the tests know them

    return writing
