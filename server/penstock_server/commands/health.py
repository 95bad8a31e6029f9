"""``penstock health``: is the server, or a model, ready?"""

from __future__ import annotations

import click

from penstock_server.commands.output import print_json
from penstock_server.commands.session import Session, calls_server


@click.command()
@click.option("--model", default="", help="Ask about one model, by name or name@version.")
@calls_server
def health(session: Session, model: str) -> None:
    """Tell whether the server answers requests; the exit status is 0 if it does."""
    with session.connect() as client:
        status = client.health(model)
    if session.as_json:
        print_json({"address": session.address, "model": model or None, "status": status.name})
    else:
        click.echo(f"{model or session.address}: {status.name.lower().replace('_', ' ')}")
    if not status.is_serving:
        raise click.exceptions.Exit(1)
