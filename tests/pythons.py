"""``python -m tests.pythons [--newest] [--prepare] [ARGUMENT…]``: the suite on each CPython from 3.11 on.

A line for each tells how it went. `--newest` runs on the newest one alone, and only what differs by the version of
Python (`DIFFERS`); `--prepare` makes the environments and runs nothing. Interpreters are looked for on the PATH and in
pyenv's folder; of two with the same minor version the newer one runs. Each has an environment of its own in
`.cache/pythons`, with the full output of its run beside it. Arguments that are not ours go to pytest.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "pythons"

OLDEST = (3, 11)
#: The tests of what meets the parts of Python that change: asyncio, ssl, email, typing and pickling.
DIFFERS = (
    *("-m", "not server"),
    "tests/client",
    *(
        f"tests/connection/test_{name}.py"
        for name in ("channel", "connection", "opening", "session", "upload")
    ),
    *(f"tests/mail/test_{name}.py" for name in ("coerce", "raw", "signing")),
    *(
        f"tests/message/test_{name}.py"
        for name in (
            "builder",
            "convert",
            "entity_from_email",
            "foreign_mail",
            "headers",
            "odd_mail",
            "readback",
        )
    ),
    "tests/pool/test_pool.py",
    *(f"tests/testing/test_{name}.py" for name in ("server", "stream_contract", "thread", "tls")),
    *(
        f"tests/tls/test_{name}.py"
        for name in (
            "context",
            "handshake_witness",
            "info",
            "negotiated",
            "offers",
            "options",
            "sessions",
            "verify",
        )
    ),
    *(f"tests/transport/test_{name}.py" for name in ("dial", "records", "resolve", "stream")),
    "tests/transport/proxy",
    *(f"tests/test_{name}.py" for name in ("cancellation", "errors", "hooks")),
)
Version = tuple[int, int, int]

#: Run by a candidate: prints its version if it is one that an environment can be made with.
_PROBE = """
import sys, ensurepip, venv
if sys.implementation.name == "cpython":
    print(*sys.version_info[:3])
"""


def candidates() -> Iterator[Path]:
    """Return every file that is named like an interpreter."""
    for folder in map(Path, os.get_exec_path()):
        if folder.is_dir():
            yield from (path for path in folder.iterdir() if re.fullmatch(r"python3(\.\d+)?", path.name))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from pyenv.glob("versions/*/bin/python3")


def version_of(python: Path) -> Version | None:
    """Ask an interpreter for its version; None for one that does not run or is no CPython with venv."""
    try:
        done = subprocess.run([python, "-c", _PROBE], capture_output=True, text=True, check=False)
    except OSError:
        return None
    if done.returncode or not done.stdout.strip():
        return None
    major, minor, micro = map(int, done.stdout.split())
    return major, minor, micro


def interpreters() -> dict[Version, Path]:
    """Return the newest interpreter of each minor version, the oldest version first."""
    newest: dict[tuple[int, int], tuple[Version, Path]] = {}
    for python in candidates():
        version = version_of(python)
        if version is not None and version[:2] >= OLDEST:
            known = newest.get(version[:2])
            if known is None or known[0] < version:
                newest[version[:2]] = version, python
    return dict(sorted(newest.values()))


def environment(version: Version, python: Path, extra: str) -> Path:
    """Return the interpreter of the environment, which is made anew when pyproject.toml or the version changes."""
    folder = CACHE / f"{_name(version)}-{extra}"
    ready = folder / ".ready"
    if not ready.exists() or ready.stat().st_mtime < (ROOT / "pyproject.toml").stat().st_mtime:
        print(f"Making {folder.relative_to(ROOT)} with {python} ...", flush=True)
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([folder / "bin" / "python", *pip, "--editable", f"{ROOT}[{extra}]"], check=True)
        ready.touch()
    return folder / "bin" / "python"


def run(version: Version, python: Path, arguments: list[str]) -> bool:
    """Run the suite, print a line that says how it went and one for each failure, and return whether it passed."""
    log = CACHE / f"{_name(version)}.log"
    # In as many processes as `make test` uses.
    pytest = ["-m", "pytest", "-q", "-n", "auto", "--maxprocesses", "8", "--dist", "worksteal", *arguments]
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run([python, *pytest], cwd=ROOT, stdout=output, stderr=output, check=False)
    lines = log.read_text(encoding="utf-8").splitlines()
    print(f"Python {_name(version)}: {lines[-1] if lines else 'no output'}", flush=True)
    if done.returncode:
        print(*[f"    {line}" for line in lines if line.startswith(("FAILED", "ERROR"))], sep="\n")
        print(f"    the whole output: {log.relative_to(ROOT)}", flush=True)
    return done.returncode == 0


def _name(version: Version) -> str:
    return ".".join(map(str, version))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.pythons", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--newest",
        action="store_true",
        help="what differs, on the newest version, and nothing if it runs this program",
    )
    parser.add_argument("--prepare", action="store_true", help="make the environments, and run nothing")
    options, arguments = parser.parse_known_args()
    found, extra = list(interpreters().items()), "dev"
    if options.newest:
        found = [one for one in found[-1:] if one[0][:2] != sys.version_info[:2]]
        arguments, extra = [*DIFFERS, *arguments], "test"
    CACHE.mkdir(parents=True, exist_ok=True)
    made = [(version, environment(version, python, extra)) for version, python in found]
    if options.prepare:
        return 0
    return 0 if all([run(version, python, arguments) for version, python in made]) else 1


if __name__ == "__main__":
    sys.exit(main())
