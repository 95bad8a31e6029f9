"""Runs a job on Ray Data: windows over a pool of actors, which write a part file for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from penstock_server.bulk.arrow import pa
from penstock_server.domain.errors import PenstockError
from penstock_server.domain.job import JobProgress
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import Task
from penstock_server.ray.attempts import start_attempts
from penstock_server.ray.cluster import connected, data_settings
from penstock_server.ray.errors import RayJobFailed
from penstock_server.ray.library import load_ray
from penstock_server.ray.output import JobManifest, OutputFolder, PartCounts, Success
from penstock_server.ray.plan import CheckedJob, RayJob, check, prepare
from penstock_server.ray.worker import WindowOrder, WindowWorker


@dataclass(frozen=True, slots=True)
class RayJobResult:
    """What a job has come to.

    Attributes:
        output_url: Its folder.
        model: The model version that computed it.
        task: What was computed.
        progress: Its counts, and the rate of this run.
        parts: Part files in the folder.
        parts_computed: Those that this run has written.
        seconds: What this run took, reading the input included.
    """

    output_url: str
    model: ModelKey
    task: Task
    progress: JobProgress
    parts: int
    parts_computed: int
    seconds: float


def run_ray_job(
    job: RayJob,
    *,
    address: str | None = None,
    workers: int | None = None,
    on_progress: Callable[[JobProgress], None] = lambda progress: None,
) -> RayJobResult:
    """Runs a job, or what is left of one: windows whose part is in the folder are not computed again.

    One run at a time: the folder is not locked.

    Args:
        job: The job.
        address: Of a Ray cluster; None for the one that this process is connected to, or else one of this
            machine's own, which ends with the job.
        workers: Workers, each with one CPU; None for as many as the cluster has CPUs.
        on_progress: Called after each window.

    Raises:
        RayMissing: Ray is not installed.
        UnknownModel, ModelBroken, TaskNotSupported, NotBuilt: The model cannot do the job.
        InvalidRequest: The job cannot work, or the folder holds another one.
        PlaceFailed, StorageFull: The input or the folder cannot be reached, or has no room.
        RayJobFailed: Ray gave it up; the message says why.
    """
    ray = load_ray()
    started_s = time.monotonic()
    checked = check(job)
    with connected(ray, address, workers) as cpus:
        count = workers or cpus
        manifest = prepare(checked, count)
        windows = range(len(manifest.windows))
        done = checked.output.parts()
        missing = [number for number in windows if number not in done]
        earlier = checked.output.counts([number for number in windows if number in done])
        tally = _Tally(manifest.rows, earlier, on_progress)
        if missing:
            checked.output.take_back_success()
            with closing(_computed(ray, checked, manifest, missing, min(count, len(missing)))) as computed:
                for counts in computed:
                    tally.add(counts)
    _finish(checked.output, tally.progress, len(windows))
    return RayJobResult(
        output_url=checked.output.place.url,
        model=checked.manifest.key,
        task=checked.options.task.task,
        progress=tally.progress,
        parts=len(windows),
        parts_computed=len(missing),
        seconds=time.monotonic() - started_s,
    )


class _Tally:
    """Counts rows as they are done.

    Args:
        total: Rows of the job.
        earlier: What earlier runs have done.
        on_progress: Told after each window.
    """

    def __init__(
        self, total: int, earlier: Sequence[PartCounts], on_progress: Callable[[JobProgress], None]
    ) -> None:
        succeeded, failed = (sum(getattr(each, name) for each in earlier) for name in ("succeeded", "failed"))
        self.progress = JobProgress(total, succeeded, failed)
        self._done_before = self.progress.done
        self._on_progress = on_progress
        self._started_s = time.monotonic()

    def add(self, counts: PartCounts) -> None:
        """Counts the rows of a window."""
        before = self.progress
        progress = replace(
            before, succeeded=before.succeeded + counts.succeeded, failed=before.failed + counts.failed
        )
        elapsed_s = time.monotonic() - self._started_s
        self.progress = progress.with_rate((progress.done - self._done_before) / max(elapsed_s, 1e-9))
        self._on_progress(self.progress)


def _computed(
    ray: Any, job: CheckedJob, manifest: JobManifest, missing: Sequence[int], workers: int
) -> Generator[PartCounts]:
    """Has windows computed; yields what became of each, in any order.

    Raises:
        PenstockError: What a worker raised, or RayJobFailed.
    """
    order = WindowOrder(job.manifest, job.options, job.output, manifest.arrow_schema(), start_attempts(ray))
    starts = manifest.start_rows()
    # A block a window: each is given to the next worker that is free, and begun anew by itself.
    blocks = [pa.table({"window": [number], "start_row": [starts[number]]}) for number in missing]
    with data_settings(ray), _told_by_ray(ray):
        dataset = ray.data.from_arrow(blocks).map_batches(
            WindowWorker,
            fn_constructor_args=[order],
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
            num_cpus=1,
        )
        for row in dataset.iter_rows():
            yield PartCounts(int(row["succeeded"]), int(row["failed"]))


@contextmanager
def _told_by_ray(ray: Any) -> Generator[None]:
    """Raises what a worker raised as it was, and what Ray itself raised as ours."""
    try:
        yield
    except ray.exceptions.RayError as err:
        cause = next((each for each in _causes(err) if isinstance(each, PenstockError)), None)
        if cause is not None:
            raise cause from err
        told = str(err).strip().splitlines()[-1][:300]
        raise RayJobFailed(
            f"Ray gave the job up ({type(err).__name__}: {told}). The same job goes on where it stopped."
        ) from err


def _causes(err: BaseException) -> Iterator[BaseException]:
    """An error and what it came from; Ray keeps a worker's error as ``cause``, Python as ``__cause__``."""
    found: BaseException | None = err
    while found is not None:
        yield found
        found = getattr(found, "cause", None) or found.__cause__


def _finish(output: OutputFolder, progress: JobProgress, windows: int) -> None:
    """Says that the job has ended, and drops the windows, of which it has no more use."""
    if progress.pending or not output.parts() >= frozenset(range(windows)):
        raise RayJobFailed(f"Some parts are not in {output.place.url}; the same job computes them again.")
    success = Success(
        total=progress.total, succeeded=progress.succeeded, failed=progress.failed, parts=windows
    )
    output.write_success(success)
    output.remove_windows(sorted(output.windows()))
