"""What counting a request costs: ``python -m benchmarks.metrics``.

Prints the medians of interleaved runs, in microseconds: what the observer is told of an answered live request
of one row that had a batch to itself.
"""

from __future__ import annotations

import statistics
import timeit
from collections.abc import Callable

from penstock_server.domain.answer import AnswerInfo
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import RequestClass
from penstock_server.domain.work import BatchPart, BatchPlan, BatchTimes
from penstock_server.observability.metrics import Metrics
from penstock_server.observability.observer import SILENT, Observer
from tests.support.work import make_work

RUNS = 15
CALLS = 5_000


def main() -> None:
    """Measures and prints."""
    batch_tokens = {"live": 512, "bulk": 256}
    observers: dict[str, Observer] = {"silent": SILENT, "metrics": Metrics(batch_tokens, 100)}
    times: dict[str, list[float]] = {name: [] for name in observers}
    for _ in range(RUNS):
        for name, observer in observers.items():
            times[name].append(timeit.timeit(_request(observer), number=CALLS) / CALLS * 1e6)
    for name, runs in times.items():
        print(f"{name:<8} {statistics.median(runs):6.2f} us a request")


def _request(observer: Observer) -> Callable[[], None]:
    model = ModelKey("minilm", "1")
    info = AnswerInfo(model, RequestClass.LIVE, 12_000_000, 150_000, 900_000, 10_500_000, 30, 0)
    work, _ = make_work([30], model=model)
    plan = BatchPlan(model, (BatchPart(work, work.rows),), 1, 30, 30)
    batch_times = BatchTimes(0, 10_500_000, 10_500_000)

    def request() -> None:
        observer.batch_ran("live", plan, batch_times)
        observer.answered("Embed", "acme", 1, info)
        observer.rpc_ended("Embed", "OK")

    return request


if __name__ == "__main__":
    main()
