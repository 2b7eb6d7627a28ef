"""`smtp-async token`: ask an account for its consent, and store what `--oauth` and `RefreshToken.from_file` read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import webbrowser
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Final

import typer

from ..errors import FileError, InvalidArgument, TokenUnavailable
from ..model.secret import Secret
from ..oauth.answers import Answer
from ..oauth.consent import consent_in_browser
from ..oauth.device import consent_on_device
from ..oauth.endpoints import GOOGLE, YANDEX, Endpoints, MicrosoftCloud, microsoft
from ..oauth.token_file import TokenFile, read_token_file, write_token_file
from .option_groups import grouped
from .options import CLIENT_SECRET_VARIABLE
from .output import Output
from .server import first_line

__all__ = ["token"]


class Provider(Enum):
    """Whose authorization server is asked."""

    GOOGLE = "google"
    MICROSOFT = "microsoft"
    YANDEX = "yandex"
    OTHER = "other"


class Cloud(Enum):
    """Microsoft's clouds, as they are written on a command line."""

    GLOBAL = "global"
    US_GOVERNMENT = "us-government"
    US_DEFENSE = "us-defense"
    CHINA = "china"


_KNOWN: Final = {Provider.GOOGLE: GOOGLE, Provider.YANDEX: YANDEX}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """The authorization server."""

    provider: Annotated[
        Provider,
        typer.Option(help="Whose authorization server is asked; other: that of the --…-url options."),
    ]
    tenant: Annotated[
        str, typer.Option(metavar="ID", help="With microsoft: the organisation's tenant, an id or a domain.")
    ] = "common"
    cloud: Annotated[Cloud, typer.Option(help="With microsoft: the national cloud of the organisation.")] = (
        Cloud.GLOBAL
    )
    authorization_url: Annotated[
        str, typer.Option(metavar="URL", help="With other: the authorization endpoint.")
    ] = ""
    device_url: Annotated[
        str, typer.Option(metavar="URL", help="With other: the device authorization endpoint.")
    ] = ""
    token_url: Annotated[str, typer.Option(metavar="URL", help="With other: the token endpoint.")] = ""
    scope: Annotated[str, typer.Option(metavar="TEXT", help="What to ask for; by default, to send mail.")] = (
        ""
    )

    def endpoints(self) -> Endpoints:
        """Return the endpoints.

        Raises:
            InvalidArgument: URLs are missing, or given for a provider whose URLs are known.
        """
        urls = (self.authorization_url, self.device_url, self.token_url)
        if self.provider is not Provider.OTHER:
            if any(urls):
                raise InvalidArgument("the addresses of an authorization server need --provider other")
            if self.provider is Provider.MICROSOFT:
                return self._with_scope(microsoft(self.tenant, MicrosoftCloud[self.cloud.name]))
            return self._with_scope(_KNOWN[self.provider])
        if not self.token_url or not self.scope:
            raise InvalidArgument(
                "--provider other needs --token-url, --scope, and --authorization-url or --device-url"
            )
        authorization, device, address = urls
        return Endpoints(
            name="other", token=address, authorization=authorization, device=device, scope=self.scope
        )

    def _with_scope(self, endpoints: Endpoints) -> Endpoints:
        return replace(endpoints, scope=self.scope) if self.scope else endpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentOptions:
    """The application, the account, and how it consents."""

    client_id: Annotated[
        str, typer.Option(metavar="ID", help="The application's id, as it was registered with the provider.")
    ]
    client_secret_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file with the application's secret in its first line, if it has one. Without it, the secret is "
            f"read from {CLIENT_SECRET_VARIABLE}.",
        ),
    ] = None
    user: Annotated[
        str, typer.Option(metavar="NAME", help="The account, which --oauth takes as the user name.")
    ] = ""
    device: Annotated[
        bool,
        typer.Option("--device", help="Consent on another device, with a code, instead of a browser here."),
    ] = False
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            help="The port to which the browser comes back, if the provider has it registered.",
        ),
    ] = 0
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address, and open no browser.")
    ] = False
    timeout: Annotated[
        float,
        typer.Option(min=0.1, metavar="SECONDS", help="Seconds until the account has to have consented."),
    ] = 300.0

    def client_secret(self) -> Secret:
        """Return the application's secret; empty: it has none.

        Raises:
            FileError, InvalidArgument: the file cannot be read, or is empty.
        """
        if self.client_secret_file is not None:
            return first_line(self.client_secret_file, "the secret")
        return Secret(os.environ.get(CLIENT_SECRET_VARIABLE, ""))


@grouped
def token(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where the token is stored, readable only by you.")
    ],
    server: ServerOptions,
    consent: ConsentOptions,
) -> None:
    """Ask an account for its consent to send mail by OAuth 2.0, and store the token for --oauth.

    Example: smtp-async token ann.token --provider microsoft --client-id 6731… --user ann@example.com
    """
    output = Output()
    with output.errors_as_sentences():
        endpoints = server.endpoints()
        _demand_replaceable(file)
        secret = consent.client_secret()
        answer = asyncio.run(_consent(output, endpoints, consent, secret))
        if answer.refresh_token is None:
            raise TokenUnavailable(
                f"{endpoints.name} issued no refresh token: the scope may have to say so (offline_access)"
            )
        content = TokenFile(
            provider=endpoints.name,
            token_endpoint=endpoints.token,
            client_id=consent.client_id,
            client_secret=secret,
            refresh_token=answer.refresh_token,
            scope=endpoints.scope,
            username=consent.user,
        )
        write_token_file(file, content)
        output.success(f"The token is stored in {file}: smtp-async send --oauth {file} …")


def _demand_replaceable(file: Path) -> None:
    """Refuse before the account consents what would fail afterwards.

    Raises:
        InvalidArgument: another file would be overwritten.
        FileError: the file, or its directory, cannot be written.
    """
    if file.exists():
        read_token_file(file)
    parent = Path(os.path.realpath(file)).parent
    if not os.access(parent, os.W_OK | os.X_OK):
        raise FileError(f"cannot write to the directory {parent}")


async def _consent(output: Output, endpoints: Endpoints, options: ConsentOptions, secret: Secret) -> Answer:
    if options.device:
        return await consent_on_device(
            endpoints,
            client_id=options.client_id,
            client_secret=secret,
            show=lambda address, code: output.remark(f"Open {address} on any device, and enter {code}"),
            patience=options.timeout,
        )
    opening: list[asyncio.Future[None]] = []

    def show(url: str) -> None:
        output.remark(f"Open this address in a browser on this machine: {url}")
        if not options.no_browser:
            # Kept until the end, because the loop keeps futures weakly.
            opening.append(asyncio.get_running_loop().run_in_executor(None, _open, url))

    return await consent_in_browser(
        endpoints,
        client_id=options.client_id,
        client_secret=secret,
        show=show,
        username=options.user,
        port=options.port,
        patience=options.timeout,
    )


def _open(url: str) -> None:
    # The address was printed, so that it can be opened by hand.
    with contextlib.suppress(webbrowser.Error, OSError):
        webbrowser.open(url)
