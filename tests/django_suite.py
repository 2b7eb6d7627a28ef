"""``python -m tests.django_suite [VERSION…]``: the backends with several versions of Django, and Django's own tests.

Each version (4.2, 5.2 and the newest one unless others are named) has an environment of its own in `.cache/django`. In
it run `tests/integrations/test_django.py` and Django's own tests of mail, which are in its source distribution, with
our backend in the place of Django's. Each of them that does not apply, to one version at least, is named below with the
reason; any other that fails is a failure here.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.pythons import interpreters

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "django"
#: The requirement of each version, and the oldest Python that it runs on.
VERSIONS = {
    "4.2": ("django==4.2.*", (3, 11)),
    "5.2": ("django==5.2.*", (3, 11)),
    # Its tests of mail need a class of Python 3.13.
    "newest": ("django>=6", (3, 13)),
}
#: The newest Python that a version runs on.
LATEST = {"4.2": (3, 12), "5.2": (3, 14)}

_SMTPLIB = "it looks at, or replaces, an object of smtplib, which is not used"
_ERRORS = "it expects an exception of smtplib or of the socket; ours are SMTPError"
_TEXT = "it expects Django's words for an error that is raised here, too"
_OPEN = "it fakes the state of an open connection; messages are sent without one being opened for them"

#: Tests of Django that do not apply, and why.
NOT_OURS = {
    "test_auth_attempted": _ERRORS,
    "test_avoids_sending_to_invalid_addresses": f"{_TEXT}; and `a@b.c <d@e.f>` is sent to d@e.f",
    "test_connection_timeout_custom": _SMTPLIB,
    "test_direct_construction_deprecated": "Django deprecates the use of its class without MAILERS, not that of others",
    "test_email_msg_uses_crlf": _SMTPLIB,
    "test_email_ssl_attempts_ssl_connection": _ERRORS,
    "test_email_tls_attempts_starttls": _ERRORS,
    "test_error_if_file_path_is_not_writable": "not about SMTP; and root, who runs it, can write everywhere",
    "test_fail_silently_on_connection_error": _SMTPLIB,
    "test_host_option_required": _TEXT,
    "test_lazy_addresses": "its sender has no domain, which is refused",
    "test_prep_address_without_force_ascii": "it calls a method that prepares addresses for smtplib",
    "test_recipient_without_domain": "an address without a domain is refused, because servers differ in what it means",
    "test_no_default_mailer_warning_if_any_email_setting_defined": "only Django itself reads them without a warning",
    "test_rejects_non_ascii_local_part": "its server offers SMTPUTF8, and is sent such an address",
    "test_reopen_connection": _OPEN,
    "test_reopen_replaces_partial_connection": _ERRORS,
    "test_send_messages_after_open_failed": _OPEN,
    "test_serialized_message_uses_crlf_line_ending": _SMTPLIB,
    "test_server_open": _SMTPLIB,
    "test_smtp_connection_uses_host_and_port": _SMTPLIB,
    "test_smtp_connection_uses_timeout": _SMTPLIB,
    "test_ssl_context_uses_ssl_certfile_and_keyfile": "it replaces the class of Python's contexts of TLS",
    "test_ssl_tls_settings_mutually_exclusive": _TEXT,
    "test_ssl_tls_mutually_exclusive": _TEXT,
}

_LAUNCH = """
import runpy, sys
from django.core.mail.backends import smtp
from smtp_async.integrations.django import EmailBackend
smtp.EmailBackend = EmailBackend
sys.argv = ["runtests.py", "mail", "--parallel=1"]
runpy.run_path("runtests.py", run_name="__main__")
"""
#: The newest Django deprecates functions that the older ones have nothing else for.
_TOLERANT = (
    "-W",
    "ignore::DeprecationWarning",
    "-W",
    "ignore::PendingDeprecationWarning",
    "-m",
    "not server",
)
_OUTCOME = re.compile(r"^(?:ERROR|FAIL): (\w+) \(", re.MULTILINE)
_COUNT = re.compile(r"^Ran (\d+) tests", re.MULTILINE)
#: What the project's tests need beside Django; its `dev` extra would take minutes.
_PACKAGES = (
    "pytest",
    "pytest-asyncio",
    "pytest-timeout",
    "pytest-xdist",
    "hypothesis",
    "aiosmtpd",
    "trustme",
)


def _pip(python: Path, command: str, *arguments: str) -> None:
    subprocess.run(
        [python, "-m", "pip", command, "-q", "--disable-pip-version-check", *arguments], check=True
    )


def environment(version: str) -> Path:
    """Return the interpreter of a version's environment, which is made unless it exists."""
    requirement, oldest = VERSIONS[version]
    folder = CACHE / version
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        latest = LATEST.get(version, (4,))
        found = [path for number, path in interpreters().items() if oldest <= number[:2] <= latest]
        if not found:
            raise SystemExit(f"{requirement} needs a CPython from {oldest} on; none was found")
        subprocess.run([found[0], "-m", "venv", "--clear", folder], check=True)
        _pip(python, "install", requirement, *_PACKAGES, f"{ROOT}[keys,sasl]")
        (folder / "ready").touch()
    return python


def source(python: Path) -> Path:
    """Return the folder of Django's own tests, fetched by pip with the source distribution."""
    number = subprocess.run(
        [python, "-c", "import django; print(django.__version__)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    folder = CACHE / f"django-{number}"
    if not folder.exists():
        _pip(
            python, "download", "--no-deps", "--no-binary", ":all:", "--dest", str(CACHE), f"django=={number}"
        )
        with tarfile.open(next(CACHE.glob(f"[dD]jango-{number}.tar.gz"))) as archive:
            archive.extractall(CACHE, filter="data")
        for other in CACHE.glob(f"Django-{number}"):
            other.rename(folder)
    return folder / "tests"


def own_tests(python: Path) -> bool:
    """Run the project's tests of the backends; return whether they passed."""
    done = subprocess.run(
        [
            python,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *_TOLERANT,
            "tests/integrations/test_django.py",
        ],
        cwd=ROOT,
    )
    return done.returncode == 0


def djangos_tests(python: Path, version: str) -> bool:
    """Run Django's tests of mail with our backend; return whether those fail that are named, and no others."""
    folder = source(python)
    done = subprocess.run(
        [python, "-W", "ignore", "-c", _LAUNCH],
        cwd=folder,
        env={"PYTHONPATH": f"{ROOT}:{folder}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    count = _COUNT.search(done.stderr)
    if count is None:
        print(done.stderr)
        return False
    failed = set(_OUTCOME.findall(done.stderr))
    unknown = sorted(failed - set(NOT_OURS))
    print(f"Django {version}: {count[1]} tests of mail; {len(failed) - len(unknown)} do not apply:")
    for name in sorted(failed & set(NOT_OURS)):
        print(f"  {name}: {NOT_OURS[name]}")
    if unknown:
        print(done.stderr, "these failed, and are not named:", *unknown, sep="\n", flush=True)
    return not unknown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=", ".join(VERSIONS))
    chosen = parser.parse_args().versions or [*VERSIONS]
    CACHE.mkdir(parents=True, exist_ok=True)
    ended = True
    for version in chosen:
        python = environment(version)
        ended &= own_tests(python)
        ended &= djangos_tests(python, version)
    return 0 if ended else 1


if __name__ == "__main__":
    sys.exit(main())
