"""What the commands that call a server share: where it is, and how answers are printed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from penstock import Client

DEFAULT_ADDRESS = "127.0.0.1:50051"
TRUNCATIONS = click.Choice(["error", "right", "left"])


@dataclass(frozen=True, slots=True)
class Session:
    """The common options of a command.

    Attributes:
        address: Where the server is.
        as_json: Print for programs, not for people.
        timeout_s: Longest time for a call; None is the client's default.
        tls: Whether to connect with TLS.
        authority: A file of PEM root certificates to trust instead of the system's.
        token: Sent as a bearer token.
    """

    address: str
    as_json: bool
    timeout_s: float | None
    tls: bool
    authority: Path | None
    token: str | None

    @property
    def address_option(self) -> str:
        """What a command that is proposed to the user needs, too; empty for the default address."""
        return "" if self.address == DEFAULT_ADDRESS else f"--address {self.address} "

    def connect(self) -> Client:
        """Makes the client; nothing is connected yet."""
        # gRPC's own log would stand beside our one line of error; it reads this when it is imported.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from penstock import Client
        from penstock.client import DEFAULT_TIMEOUT_S

        tls = self.authority.read_bytes() if self.authority is not None else self.tls
        timeout_s = DEFAULT_TIMEOUT_S if self.timeout_s is None else self.timeout_s
        return Client(self.address, timeout_s=timeout_s, tls=tls, token=self.token)


_OPTIONS = (
    click.option(
        "--address", envvar="PENSTOCK_ADDRESS", default=DEFAULT_ADDRESS, show_default=True,
        help="host:port of the server.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON for programs."),
    click.option(
        "--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), help="Seconds a call may take."
    ),
    click.option("--tls", is_flag=True, help="Connect with TLS."),
    click.option(
        "--ca", "authority", type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="PEM file of the certificate authority to trust; implies --tls.",
    ),
    click.option("--token", envvar="PENSTOCK_TOKEN", help="Bearer token."),
)  # fmt: skip


def calls_server(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the common options to a command, which gets them as a `Session`, its first argument."""

    @wraps(command)
    def wrapped(
        *,
        address: str,
        as_json: bool,
        timeout_s: float | None,
        tls: bool,
        authority: Path | None,
        token: str | None,
        **rest: Any,
    ) -> None:
        command(Session(address, as_json, timeout_s, tls, authority, token), **rest)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def task_of(client: Client, model: str, task: str | None) -> str:
    """Returns the task asked for, or the one that the model does."""
    if task is not None:
        return task
    described = client.models.get(model)
    if not described.versions:
        raise click.UsageError(f"model {model!r} has no versions; see `penstock models show {model}`")
    return described.versions[0].task.value
