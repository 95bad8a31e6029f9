"""``penstock serve``: the server."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one.  [default: 50051]")
@click.option(
    "--models",
    "models_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the models.  [default: models]",
)
@click.option(
    "--data",
    "data_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of jobs and results.  [default: data]",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file with more settings; options here win.",
)
@click.option("--json-logs", is_flag=True, help="Log JSON lines.")
def serve(
    host: str | None,
    port: int | None,
    models_dir: Path | None,
    data_dir: Path | None,
    config_path: Path | None,
    json_logs: bool,
) -> None:
    """Serve the models of a folder until SIGTERM or Ctrl-C; work in flight is finished first."""
    from penstock_server.app import run_server
    from penstock_server.config import load_config

    config = load_config(
        config_path,
        host=host,
        port=port,
        models_dir=models_dir,
        data_dir=data_dir,
        log_format="json" if json_logs else None,
    )
    raise click.exceptions.Exit(run_server(config))
