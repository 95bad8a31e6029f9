"""What happened to a request on its way, told where the caller asks for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from penstock_server.domain.tasks import RequestClass


@dataclass(frozen=True, slots=True)
class BatchRun:
    """A batch that computed rows of a request; times in nanoseconds of the server's monotonic clock.

    Attributes:
        lane: The lane that ran it.
        rows: Rows of the batch, of all requests.
        own_rows: Rows of the batch that belong to the request.
        tokens: Tokens of the batch without padding.
        padded_tokens: Tokens of the batch with padding.
        rows_by_class: Rows of the batch by the class they were served as, most urgent first.
        start_ns: When it was started.
        end_ns: When its outputs were there.
        shared_rows: Own rows that were computed once for an identical row.
        predicted_ns: What it was to cost at most, as the scheduler had learnt; 0 if it was not asked.
    """

    lane: str
    rows: int
    own_rows: int
    tokens: int
    padded_tokens: int
    rows_by_class: tuple[tuple[RequestClass, int], ...]
    start_ns: int
    end_ns: int
    shared_rows: int = 0
    predicted_ns: int = 0


def add_run(runs: list[BatchRun], run: BatchRun) -> None:
    """Adds a batch to those of a work, or to what is told of the same batch already."""
    if runs and (runs[-1].lane, runs[-1].start_ns) == (run.lane, run.start_ns):
        last = runs[-1]
        own_rows, shared_rows = last.own_rows + run.own_rows, last.shared_rows + run.shared_rows
        runs[-1] = replace(last, own_rows=own_rows, shared_rows=shared_rows)
    else:
        runs.append(run)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happened to a request.

    Attributes:
        batches: The batches that computed its rows, in the order they were started.
        admitted_ns: When it was admitted, on the clock of the batches.
        tenant: Who pays for it; empty where nobody is named.
        demoted_from: The class it had before it was demoted; None if it was not.
        routing_rule: The rule that decided its class; empty if none did.
        spared_version: The version that would have answered but for the overload; empty if it did.
        predicted_ns: From admission to the answer, as predicted when its last batch started; None if nothing
            was.
        cached_rows: Rows whose outputs were there, as the same had been computed before.
    """

    batches: tuple[BatchRun, ...] = ()
    admitted_ns: int = 0
    tenant: str = ""
    demoted_from: RequestClass | None = None
    routing_rule: str = ""
    spared_version: str = ""
    predicted_ns: int | None = None
    cached_rows: int = 0
