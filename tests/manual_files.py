"""The files that programs of the manual read: keys, certificates, stores, templates."""

import shutil
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from smtp_async import CertificateStore
from tests.tls.identities import FILES, MIDDLE, MIDDLE_KEY, ROOT, issue, key, key_pem, p7b, pems, pfx

#: The password that the manual writes down instead of one.
PASSWORD = "…"
#: The name that the manual looks for.
ANN = x509.Name(
    [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example, Inc."),
        x509.NameAttribute(NameOID.COMMON_NAME, "Ann"),
    ]
)


def write_files(folder: Path) -> None:
    """Write each file into the folder, under the name that the manual gives it."""
    of_ann, of_bob = key("ec", 200), key("rsa", 201)
    ann = issue(of_ann, ANN, MIDDLE.x509.subject, MIDDLE_KEY)
    bob = issue(of_bob, ANN, MIDDLE.x509.subject, MIDDLE_KEY)
    for name in ("ann.pfx", "ann.p12", "all.p12"):
        (folder / name).write_bytes(pfx(of_ann, ann, MIDDLE, ROOT, password=PASSWORD))
    (folder / "ann.pem").write_bytes(pems(ann))
    (folder / "recipients.pem").write_bytes(pems(bob))
    for name in ("dkim.pem", "rsa.pem", "org.pem"):
        (folder / name).write_bytes(key_pem(of_bob))
    (folder / "ed25519.pem").write_bytes(key_pem(key("ed25519", 202)))
    shutil.copy(FILES / "ecdsa-2-plain.ppk", folder / "ann.ppk")
    of_putty = CertificateStore.load(folder / "ann.ppk").key()
    templates = folder / "templates"
    templates.mkdir()
    (templates / "welcome.subject.txt").write_text("Welcome, {{ name }}")
    (templates / "welcome.html").write_text('<h1>Welcome, {{ name }}</h1> <img src="logo.png">')
    (templates / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    chain = issue(of_putty, ANN, MIDDLE.x509.subject, MIDDLE_KEY)
    (folder / "chain.p7b").write_bytes(p7b(chain, MIDDLE, ROOT))
