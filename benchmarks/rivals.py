"""The rivals' own environments, made when a benchmark first needs them; both folders are ignored by git."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-bench"
NODE = ROOT / ".bench-node"

_PACKAGES = ("aiosmtplib", "python-socks[asyncio]", "uvloop")


class Unavailable(Exception):
    """A contestant or a server cannot be had on this machine; the text says why."""


@cache
def python() -> Path:
    """Return the interpreter of an environment with aiosmtplib and python-socks, of the same Python as ours.

    Raises:
        Unavailable: it cannot be installed.
    """
    path = VENV / "bin" / "python"
    ready = VENV / ".ready"
    if not ready.exists() or ready.read_text() != " ".join(_PACKAGES):
        _run([sys.executable, "-m", "venv", "--clear", str(VENV)], "a virtual environment")
        install = [str(path), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *_PACKAGES]
        _run(install, "aiosmtplib")
        ready.write_text(" ".join(_PACKAGES))
    return path


@cache
def node() -> Path:
    """Return the program `node` after Nodemailer was installed for it.

    Raises:
        Unavailable: there is no Node, or it cannot be installed.
    """
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None or npm is None:
        raise Unavailable("Nodemailer needs node and npm, which are not installed")
    if not (NODE / "node_modules" / "nodemailer").exists():
        NODE.mkdir(exist_ok=True)
        quiet = ["--no-audit", "--no-fund", "--silent"]
        _run([npm, "install", "--prefix", str(NODE), *quiet, "nodemailer"], "Nodemailer")
    return Path(program)


@cache
def versions() -> dict[str, str]:
    """Return name and version of every rival that can be had."""
    found = {}
    ask = "import importlib.metadata as m; print(m.version('aiosmtplib'), m.version('uvloop'))"
    try:
        words = _run([str(python()), "-c", ask], "aiosmtplib").split()
        found["aiosmtplib"], found["uvloop"] = words
    except Unavailable:
        pass
    try:
        ask = "console.log(require('nodemailer/package.json').version)"
        found["Nodemailer"] = _run([str(node()), "-e", ask], "Nodemailer", cwd=NODE).strip()
    except Unavailable:
        pass
    return found


def _run(command: list[str], what: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd)
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise Unavailable(f"{what} cannot be installed: {said[-1] if said else error}") from error
    return done.stdout
