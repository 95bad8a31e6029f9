"""The command ``penstock``: argv to subcommands, errors to one line and an exit status.

Exit statuses: 0 done, 1 the server or the job failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from penstock_server.commands.bulk import bulk
from penstock_server.commands.health import health
from penstock_server.commands.live import classify, embed, tokenize
from penstock_server.commands.models import models
from penstock_server.commands.profile import profile
from penstock_server.commands.serve import serve
from penstock_server.commands.simulate import simulate
from penstock_server.commands.stream import stream

INTERRUPTED = 130
BROKEN_PIPE = 141


class CommandFailed(click.ClickException):
    """An expected failure: one line on stderr, no traceback."""

    def show(self, file: Any = None) -> None:
        """Prints the line."""
        click.echo(f"penstock: {self.format_message()}", err=True)


class Root(click.Group):
    """The top command; turns what subcommands raise into exit statuses."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the subcommand."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("penstock: interrupted", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader went away (| head); what is still buffered has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            message = _expected(error)
            if message is None:
                raise
            raise CommandFailed(message) from error


def _expected(error: Exception) -> str | None:
    """Returns the line to print for an expected error, None for a defect of ours."""
    # Imported here: the commands that succeed need neither.
    from penstock import PenstockError
    from penstock_server.domain import errors

    if isinstance(error, PenstockError | errors.PenstockError):
        return error.message
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{where}"
    return str(error) if isinstance(error, ValueError) else None


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="penstock-server", prog_name="penstock")
def cli() -> None:
    """Penstock: live and bulk NLP inference from one server.

    Start a server with `penstock models pull demo` and `penstock serve`; the other commands call it.
    """


for command in (serve, embed, classify, tokenize, stream, bulk, models, profile, health, simulate):
    cli.add_command(command)


def main() -> None:
    """Runs the command line and exits with its status."""
    cli(prog_name="penstock")


if __name__ == "__main__":
    main()
