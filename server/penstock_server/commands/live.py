"""``penstock embed``, ``classify`` and ``tokenize``: one call, one table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from penstock_server.commands.explained import print_deferred, print_explanation
from penstock_server.commands.output import (
    answer_fields,
    answer_line,
    info_fields,
    info_line,
    labels_line,
    print_json,
    print_table,
    short,
)
from penstock_server.commands.session import TRUNCATIONS, Session, calls_server
from penstock_server.commands.texts import gather


def _takes_texts(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the texts and the options of all live calls."""
    for option in (
        click.option("--model", required=True, help="Name of the model; see `penstock models list`."),
        click.option("--model-version", default="", help="Version of the model.  [default: its route's]"),
        click.option("--truncation", type=TRUNCATIONS, help="What happens to texts that are too long."),
        click.option("--tokens-max", type=click.IntRange(min=1), help="Longest text in tokens."),
        click.option(
            "--file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Read the texts from a file, one a line.",
        ),
        click.argument("texts", nargs=-1),
    ):
        command = option(command)
    return command


_explains = click.option("--explain", is_flag=True, help="Tell which batches computed the texts, and how.")


@click.command()
@_takes_texts
@click.option("--dimensions", type=click.IntRange(min=1), help="Keep only the first dimensions.")
@click.option("--normalize/--no-normalize", default=None, help="Scale vectors to unit length or not.")
@_explains
@calls_server
def embed(
    session: Session,
    texts: tuple[str, ...],
    file: Path | None,
    model: str,
    model_version: str,
    truncation: str | None,
    tokens_max: int | None,
    dimensions: int | None,
    normalize: bool | None,
    explain: bool,
) -> None:
    """Compute a vector for each text (arguments, --file, or lines of stdin)."""
    rows = gather(texts, file)
    with session.connect() as client:
        vectors = client.embed(
            rows,
            model=model,
            version=model_version,
            truncation=truncation,
            tokens_max=tokens_max,
            dimensions=dimensions,
            normalize=normalize,
            explain=explain,
        )
    if vectors.info.job_id:
        print_deferred(session, vectors.info)
    elif session.as_json:
        info = info_fields(vectors.info)
        print_json({**info, "dimensions": vectors.dimensions, "embeddings": vectors.tolist()})
    else:
        lines = [(short(text), answer_line(vector)) for text, vector in zip(rows, vectors, strict=True)]
        print_table(("text", "vector"), lines, info_line(vectors.info))
        print_explanation(vectors.info)


@click.command()
@_takes_texts
@click.option("--top-k", type=click.IntRange(min=1), help="Show the best labels only.")
@_explains
@calls_server
def classify(
    session: Session,
    texts: tuple[str, ...],
    file: Path | None,
    model: str,
    model_version: str,
    truncation: str | None,
    tokens_max: int | None,
    top_k: int | None,
    explain: bool,
) -> None:
    """Score each text (arguments, --file, or lines of stdin) over the model's labels."""
    rows = gather(texts, file)
    with session.connect() as client:
        answers = client.classify(
            rows,
            model=model,
            version=model_version,
            truncation=truncation,
            tokens_max=tokens_max,
            top_k=top_k,
            explain=explain,
        )
    if answers.info.job_id:
        print_deferred(session, answers.info)
    elif session.as_json:
        info = info_fields(answers.info)
        print_json({**info, "classifications": [answer_fields(answer) for answer in answers]})
    else:
        lines = [(short(text), labels_line(answer)) for text, answer in zip(rows, answers, strict=True)]
        print_table(("text", "labels"), lines, info_line(answers.info))
        print_explanation(answers.info)


@click.command()
@_takes_texts
@click.option("--no-special-tokens", is_flag=True, help="Leave out [CLS], [SEP] and the like.")
@calls_server
def tokenize(
    session: Session,
    texts: tuple[str, ...],
    file: Path | None,
    model: str,
    model_version: str,
    truncation: str | None,
    tokens_max: int | None,
    no_special_tokens: bool,
) -> None:
    """Split each text (arguments, --file, or lines of stdin) into the model's tokens."""
    rows = gather(texts, file)
    with session.connect() as client:
        answers = client.tokenize(
            rows,
            model=model,
            version=model_version,
            truncation=truncation,
            tokens_max=tokens_max,
            special_tokens=not no_special_tokens,
        )
    if session.as_json:
        sequences = [
            {
                "ids": each.ids,
                "tokens": each.tokens,
                "offsets": each.offsets,
                "type_ids": each.type_ids,
                "truncated": each.truncated,
            }
            for each in answers
        ]
        print_json({**info_fields(answers.info), "sequences": sequences})
    else:
        lines = [
            (short(text), str(len(each)), " ".join(each.tokens or ()))
            for text, each in zip(rows, answers, strict=True)
        ]
        print_table(("text", "count", "tokens"), lines)
