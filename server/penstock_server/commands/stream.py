"""``penstock stream``: lines in, answers out as they come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from penstock_server.commands.output import (
    answer_fields,
    answer_line,
    error_fields,
    info_fields,
    print_json,
    short,
)
from penstock_server.commands.session import Session, calls_server, task_of
from penstock_server.commands.texts import decoded, stdin_lines

if TYPE_CHECKING:
    from penstock import StreamResult
    from penstock.stream import StreamItem

_TRANSCRIPT_ID = "transcript"


class _Lines:
    """The lines of stdin on their way, kept until their answers are printed."""

    def __init__(self, *, latest_wins: bool, transcript: bool) -> None:
        self._key = "stdin" if latest_wins else ""
        self._is_transcript = transcript
        self._waiting: dict[str, str] = {}
        self._grown = ""

    def items(self) -> Iterator[StreamItem]:
        from penstock import StreamAppend, StreamText

        lines = decoded(stdin_lines(), "stdin")
        if self._is_transcript:
            for line in lines:
                self._grown += f"{line}\n"
                yield StreamAppend(_TRANSCRIPT_ID, f"{line}\n")
            yield StreamAppend(_TRANSCRIPT_ID, "", end=True)
            return
        for number, line in enumerate(lines):
            if line.strip():
                self._waiting[str(number)] = line
                yield StreamText(str(number), line, key=self._key)

    def text_of(self, result: StreamResult) -> str:
        """Returns the text that was answered and forgets it."""
        if result.sentence is not None:
            return self._grown[result.sentence.start_char : result.sentence.end_char]
        return self._waiting.pop(result.id, "")


@click.command()
@click.option("--model", required=True, help="Name of the model; see `penstock models list`.")
@click.option("--task", type=click.Choice(["embed", "classify", "tag"]), help="[default: the model's]")
@click.option("--as-ready", is_flag=True, help="Print each answer as soon as it is ready, not in order.")
@click.option("--latest-wins", is_flag=True, help="A newer line replaces one not yet computed.")
@click.option("--transcript", is_flag=True, help="Lines are one growing text; each sentence is answered.")
@click.option("--explain", is_flag=True, help="Tell how each text was computed; with --json only.")
@click.option("--max-in-flight", type=click.IntRange(min=1), help="Most texts computed at once.")
@calls_server
def stream(
    session: Session,
    model: str,
    task: str | None,
    as_ready: bool,
    latest_wins: bool,
    transcript: bool,
    explain: bool,
    max_in_flight: int | None,
) -> None:
    """Answer the lines of stdin as they come; ends with stdin, or on Ctrl-C."""
    if transcript and latest_wins:
        raise click.UsageError("--transcript and --latest-wins exclude each other")
    if explain and not session.as_json:
        raise click.UsageError("--explain needs --json here: answers are one line each")
    lines = _Lines(latest_wins=latest_wins, transcript=transcript)
    with session.connect() as client:
        results = client.stream(
            lines.items(),
            model=model,
            task=task_of(client, model, task),
            order="as_ready" if as_ready else "in_order",
            max_in_flight=max_in_flight,
            timeout_s=session.timeout_s,
            explain=explain,
        )
        for result in results:
            _print(result, lines.text_of(result), as_json=session.as_json)


def _print(result: StreamResult, text: str, *, as_json: bool) -> None:
    """Prints one answer as a line of its own, at once: click.echo flushes."""
    if as_json:
        fields = {"id": result.id, "text": text, **answer_fields(result.answer)}
        if result.sentence is not None:
            place = result.sentence
            fields |= {"index": place.index, "start_char": place.start_char, "end_char": place.end_char}
        if result.error is not None:
            fields["error"] = error_fields(result.error)
        if result.info is not None and result.info.explanation is not None:
            fields["info"] = info_fields(result.info)
        if result.superseded_by is not None:
            fields["superseded_by"] = result.superseded_by
        if result.sentences_total is not None:
            fields["sentences"] = result.sentences_total
        print_json(fields)
    elif result.sentences_total is None:
        click.echo(f"{_told(result)}\t{short(text)}")


def _told(result: StreamResult) -> str:
    if result.error is not None:
        return f"error: {result.error.message}"
    if result.superseded_by is not None:
        return "replaced by a newer line"
    return answer_line(result.answer)
