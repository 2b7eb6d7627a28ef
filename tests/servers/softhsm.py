"""A token without hardware: SoftHSM, in a directory of its own."""

import os
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.servers.machine import program, unavailable

PIN, OWNER_PIN = "1234", "87654321"
#: Debian puts it into the first, others elsewhere.
LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)


class SoftHSM:
    """Tokens in `directory`. Its library reads where they are once per process, so there can be one of these."""

    def __init__(self, directory: Path) -> None:
        try:
            import pkcs11  # noqa: F401
        except ImportError:
            unavailable("python-pkcs11 is not installed (the extra [pkcs11])")
        self._tool = program("softhsm2-util")
        self.module = next((one for one in LIBRARIES if Path(one).exists()), "")
        if not self.module:
            unavailable(
                "the module of SoftHSM is not where it is looked for (tests/servers/install.sh installs it)"
            )
        (directory / "tokens").mkdir()
        configuration = directory / "softhsm2.conf"
        configuration.write_text(f"directories.tokendir = {directory / 'tokens'}\nlog.level = ERROR\n")
        os.environ["SOFTHSM2_CONF"] = str(configuration)
        self._directory = directory

    def add_token(self, label: str) -> None:
        """Make an empty token with the usual PIN."""
        import pkcs11

        self._run("--init-token", "--free", "--label", label, "--so-pin", OWNER_PIN, "--pin", PIN)
        # Once it is loaded, the library does not look for new tokens.
        pkcs11.lib(self.module).reinitialize()

    def add_key(self, token: str, pem: bytes, *, label: str, key_id: bytes) -> None:
        """Put a key in PKCS#8 onto a token, both halves."""
        path = self._directory / "key.pem"
        path.write_bytes(pem)
        self._run(
            *("--import", str(path), "--token", token, "--pin", PIN, "--label", label, "--id", key_id.hex()),
        )
        path.unlink()

    def add_certificate(self, token: str, der: bytes, *, label: str, key_id: bytes) -> None:
        """Put a certificate onto a token."""
        import pkcs11
        from pkcs11.util.x509 import decode_x509_certificate

        attributes: dict[Any, Any] = decode_x509_certificate(der)
        attributes |= {
            pkcs11.Attribute.TOKEN: True,
            pkcs11.Attribute.LABEL: label,
            pkcs11.Attribute.ID: key_id,
        }
        slot = pkcs11.lib(self.module).get_token(token_label=token)
        with slot.open(rw=True, user_pin=PIN) as session:
            session.create_object(attributes)

    def remove(self, token: str, *, key_id: bytes) -> None:
        """Take a key off a token again."""
        import pkcs11

        with pkcs11.lib(self.module).get_token(token_label=token).open(rw=True, user_pin=PIN) as session:
            for one in list(session.get_objects({pkcs11.Attribute.ID: key_id})):
                one.destroy()

    def uri(self, path: str, *query: str) -> str:
        """Return a URI with the path of the module."""
        return f"pkcs11:{path}?" + "&".join((f"module-path={quote(self.module)}", *query))

    def _run(self, *arguments: str) -> None:
        done = subprocess.run([self._tool, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
