"""What is to be computed: an input is cut into windows once, and later runs go on with those.

The windows lie in the job's folder, which every node reaches anyhow. So Ray moves their numbers only, a node
that is lost takes nothing with it, and the same readers as a server's read the input, in the same order.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from enum import Enum
from itertools import pairwise
from math import ceil
from pathlib import Path

from penstock_server.bulk.carried import check_carried
from penstock_server.bulk.file_sets import names_many
from penstock_server.bulk.formats import format_of_name
from penstock_server.bulk.inputs import InputOrder, materialise
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.openai_input import batch_columns
from penstock_server.bulk.places import Place, place_of, version_of
from penstock_server.bulk.result_table import result_schema
from penstock_server.bulk.spec_checks import check_spec
from penstock_server.bulk.spool import Spool
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import FileFormat, InputColumns, RowSelection
from penstock_server.domain.model import ModelManifest
from penstock_server.ray.model import ModelOrder, open_model
from penstock_server.ray.output import JobManifest, OutputFolder
from penstock_server.ray.rows import RowOptions

# Windows for each worker that an input is cut into at least, so that all of them end at about the same time.
_WINDOWS_A_WORKER = 4
# But none smaller: shorter ones waste more on padding.
_WINDOW_ROWS_MIN = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RayJob:
    """A job over one input.

    Attributes:
        input_url: The input: a URL, or an absolute path of the machine that starts the job.
        output_url: Folder for the results: a URL, or an absolute path that is the same folder on every node.
        model: The model, in a folder that is at the same path there and on every node.
        columns: What is read of the input.
        input_format: Its format; None for what its name tells.
    """

    input_url: str
    output_url: str
    model: ModelOrder
    columns: InputColumns = field(default_factory=InputColumns)
    input_format: FileFormat | None = None


@dataclass(frozen=True, slots=True)
class CheckedJob:
    """A job that the model can do.

    Attributes:
        source: Where the input is.
        output: The job's folder.
        manifest: The model.
        options: How its rows are computed.
        columns: What is read of the input.
        input_format: Its format.
    """

    source: Place
    output: OutputFolder
    manifest: ModelManifest
    options: RowOptions
    columns: InputColumns
    input_format: FileFormat

    def spec(self) -> dict[str, str]:
        """Everything that a row's answer depends on, by name.

        Raises:
            InvalidRequest: The input is not there.
            PlaceFailed: It cannot be reached.
        """
        columns = {f"{name} column": value for name, value in asdict(self.columns).items()}
        values = {
            "input": self.source.url,
            "version of the input": version_of(self.source),
            "input format": self.input_format,
            **columns,
            "model": str(self.manifest.key),
            "task": asdict(self.options.task),
            "truncation": self.options.truncation,
            "tokens_max": self.options.tokens_max,
        }
        return {name: json.dumps(value, default=_name_of) for name, value in values.items()}


def check(job: RayJob) -> CheckedJob:
    """Checks a job before anything of its input is read.

    Raises:
        UnknownModel, ModelBroken, TaskNotSupported, NotBuilt: The model cannot do it.
        InvalidRequest: A URL, a column or an option cannot work.
    """
    if names_many(job.input_url):
        raise InvalidRequest.of_field("input_url", "must be one file; run a job for each, or on a server")
    source = _place(job.input_url, "input_url")
    manifest = job.model.manifest()
    options = job.model.options(manifest)
    input_format = job.input_format or format_of_name(source.path)
    columns = _columns(job.columns, input_format)
    check_spec(open_model(manifest), options.task, columns, input_format, job.model.tokens_max)
    output = OutputFolder(_place(job.output_url, "output_url"))
    return CheckedJob(source, output, manifest, options, columns, input_format)


def prepare(job: CheckedJob, workers: int) -> JobManifest:
    """Makes the folder ready: reads the input unless its windows are there already.

    Args:
        job: The job.
        workers: How many will compute; small inputs are cut so that each has some windows.

    Returns:
        What the folder is for.

    Raises:
        InvalidRequest: The folder holds something else, or the input as a whole cannot be used.
        PlaceFailed, StorageFull: The input or the folder cannot be reached, or has no room.
    """
    spec = job.spec()
    known, parts = job.output.manifest(), job.output.parts()
    if known is None:
        if parts:
            raise InvalidRequest(f"{job.output.place.url} holds parts of something else. Use another folder.")
        manifest = _cut(job, spec, lambda rows: _window_rows(rows, workers))
        job.output.write_manifest(manifest)
        return manifest
    _refuse_another(known, spec, job.output.place)
    missing = frozenset(range(len(known.windows))) - parts
    # A job that has ended has deleted its windows; somebody has deleted parts since.
    if missing <= job.output.windows():
        return known
    if _cut(job, spec, lambda _: known.window_rows) != known:
        raise InvalidRequest(f"{job.output.place.url} was written by another release. Use another folder.")
    return known


def _place(url: str, name: str) -> Place:
    try:
        return place_of(url)
    except ValueError as err:
        raise InvalidRequest.of_field(name, f"{err}, such as s3://bucket/name or /mnt/name") from err


def _columns(columns: InputColumns, input_format: FileFormat) -> InputColumns:
    if input_format is FileFormat.OPENAI_BATCH:
        if columns != InputColumns():
            raise InvalidRequest("A batch file has its own fields; name no columns.")
        return batch_columns()
    check_carried(columns.carried, BulkLimits())
    return columns


def _refuse_another(known: JobManifest, spec: dict[str, str], folder: Place) -> None:
    names = sorted(known.spec.keys() | spec.keys())
    differing = [
        f"{name}: {known.spec.get(name)}, now {spec.get(name)}"
        for name in names
        if known.spec.get(name) != spec.get(name)
    ]
    if differing:
        raise InvalidRequest(f"{folder.url} holds another job ({'; '.join(differing)}). Use another folder.")


def _cut(job: CheckedJob, spec: dict[str, str], window_rows_of: Callable[[int], int]) -> JobManifest:
    """Reads the input and writes its windows into the folder."""
    with tempfile.TemporaryDirectory() as name, closing(_spooled(job, Path(name))) as spool:
        window_rows = window_rows_of(spool.rows)
        cuts = _cuts(spool, window_rows)
        job.output.write_windows(spool, cuts)
        schema = result_schema(
            spool,
            job.options.task.task,
            has_keys=job.columns.key is not None,
            carried=job.columns.carried,
            selection=RowSelection.ALL,
        )
        return JobManifest(
            spec=spec,
            windows=tuple(rows for _, _, rows in cuts),
            window_rows=window_rows,
            schema=schema.serialize().to_pybytes(),
        )


def _cuts(spool: Spool, window_rows: int) -> list[tuple[int, int, int]]:
    """Cuts each window of a spool into like pieces: its number, and the piece's first row and rows."""
    cuts: list[tuple[int, int, int]] = []
    for number in range(spool.windows):
        rows = spool.start_row(number + 1) - spool.start_row(number)
        pieces = ceil(rows / window_rows)
        bounds = [rows * piece // pieces for piece in range(pieces + 1)]
        cuts += [(number, first, end - first) for first, end in pairwise(bounds)]
    return cuts


def _spooled(job: CheckedJob, scratch: Path) -> Spool:
    """Reads and checks all rows, as a server does when it validates a job."""
    order = InputOrder(
        input_path=Path(job.source.path) if job.source.is_local else scratch / "input",
        spool_path=scratch / "spool.arrow",
        input_format=job.input_format,
        columns=job.columns,
        limits=BulkLimits(),
        place=None if job.source.is_local else job.source,
    )
    materialise(order)
    return Spool(order.spool_path)


def _window_rows(rows: int, workers: int) -> int:
    share = ceil(rows / (_WINDOWS_A_WORKER * workers))
    return min(max(share, _WINDOW_ROWS_MIN), BulkLimits().window_rows)


def _name_of(value: object) -> object:
    """What JSON gets for a value that it does not know."""
    return value.value if isinstance(value, Enum) else str(value)
