"""The versions of this installation, for bug reports and `smtp-async --version`."""

from __future__ import annotations

__all__ = ["__version__", "build_info"]

__version__ = "0.1.0"


def build_info() -> dict[str, str]:
    """Return the versions of the library, Python, OpenSSL, the platform and the dependencies, by name.

    Dependencies are not imported: their versions come from the metadata of their distributions. The version of a
    missing dependency is `"not installed"`.
    """
    import platform
    import ssl

    return {
        "smtp_async": __version__,
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "OpenSSL": ssl.OPENSSL_VERSION,
        "platform": platform.platform(),
        **{name: _version(name) for name in _dependencies()},
    }


def _dependencies() -> list[str]:
    """Return the names of the declared dependencies, without development tools and the package's own extras."""
    import re
    from importlib import metadata

    try:
        declared = metadata.requires("smtp-async") or []
    except metadata.PackageNotFoundError:
        # A copy of the source tree is not installed, so its requirements are not recorded.
        return []
    wanted = [one for one in declared if not re.search(r"""extra\s*==\s*["'](?:dev|test|all)["']""", one)]
    names = [found[0] for one in wanted if (found := re.match(r"[A-Za-z0-9._-]+", one))]
    return [name for name in dict.fromkeys(names) if name != "smtp-async"]


def _version(name: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
