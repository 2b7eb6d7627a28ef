"""``python -m tests.dist [--keep FOLDER]``: build the packages, install them in an empty environment, and try them.

The wheel is installed twice, as a user would: without extras, where a program sends mail to a server, and then with
`[cli]`, where the commands are. A wheel built from the source package must have the same files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: A server that takes one message and a client that sends it; without the test kit, which is no part of this trial.
PROGRAM = """
import asyncio, importlib.util, smtp_async
from smtp_async import Message, SMTPClient

async def serve(reader, writer):
    writer.write(b"220 here\\r\\n")
    body = False
    while line := await reader.readline():
        verb = line[:4].upper().strip()
        if body:
            body = line != b".\\r\\n"
            answer = None if body else b"250 taken"
        elif verb == b"DATA":
            body, answer = True, b"354 go on"
        else:
            answer = b"221 bye" if verb == b"QUIT" else b"250 ok"
        if answer:
            writer.write(answer + b"\\r\\n")
    writer.close()

async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with SMTPClient.from_url(f"smtp+plain://127.0.0.1:{port}") as client:
            letter = Message(sender="a@example.com", to="b@example.org", subject="x", text="y")
            print((await client.send(letter)).outcome.name)

print(importlib.util.find_spec("typer"), smtp_async.__file__)
asyncio.run(main())
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program that must succeed, and return what it prints; its folder is not that of the sources."""
    # Neither the folder of the sources nor the packages around this process may be found.
    env = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed with {done.returncode}\n{done.stdout}")
    return done.stdout


def expect(condition: bool, what: str) -> None:
    """End with an error unless a condition holds."""
    if not condition:
        sys.exit(f"wrong: {what}")
    print(f"ok: {what}")


def files_of(wheel: Path) -> set[str]:
    """Return the names of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def try_packages(folder: Path, scratch: Path) -> None:
    """Build both packages into a folder, and try them."""
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    [wheel], [source] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    run(sys.executable, "-m", "venv", scratch / "venv", cwd=scratch)
    scripts = scratch / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    pip = (scripts / "python", "-m", "pip", "--quiet", "--disable-pip-version-check")

    run(*pip, "install", wheel, cwd=scratch)
    said = run(scripts / "python", "-c", PROGRAM, cwd=scratch)
    expect(
        "ACCEPTED" in said and "None" in said and str(ROOT) not in said, "a message is sent without extras"
    )

    run(*pip, "install", f"smtp-async[cli] @ {wheel.as_uri()}", cwd=scratch)
    expect("smtp_async" in run(scripts / "smtp-async", "--version", cwd=scratch), "smtp-async --version")
    said = run(scripts / "smtp-async-sendmail", "--version", cwd=scratch)
    expect(said.startswith("smtp-async "), "smtp-async-sendmail --version")
    pages = {path.name for path in (ROOT / "docs" / "man").glob("*.1")}
    installed = {path.name for path in (scratch / "venv" / "share" / "man" / "man1").glob("*.1")}
    expect(pages == installed != set(), f"{len(pages)} manual pages")

    run(*pip, "wheel", "--no-deps", "--wheel-dir", scratch / "again", source, cwd=scratch)
    [again] = (scratch / "again").glob("*.whl")
    expect(files_of(again) == files_of(wheel), "the source package makes the same wheel")
    expect("smtp_async/py.typed" in files_of(wheel), "the wheel has py.typed")


def main() -> None:
    """Build and try, and keep the packages if a folder is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the packages stay")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name).resolve()
        (scratch / "dist").mkdir()
        try_packages(scratch / "dist", scratch)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for path in (scratch / "dist").iterdir():
                shutil.copy(path, keep)


if __name__ == "__main__":
    main()
