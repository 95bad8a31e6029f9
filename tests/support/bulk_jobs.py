"""A job runner on a manual lane: tests say when rows are computed, and no thread or clock has a say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from penstock_kernels import TokenRows
from penstock_server.api.deadlines import Context
from penstock_server.bulk.database import Database
from penstock_server.bulk.delivery import DeliveryOrder
from penstock_server.bulk.export import ExportOrder
from penstock_server.bulk.file_process import carry_out
from penstock_server.bulk.file_sets import FindOrder, FoundFiles
from penstock_server.bulk.inputs import InputOrder
from penstock_server.bulk.journal import JobStore
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.retry import RetryOrder
from penstock_server.bulk.uploads import UploadStore
from penstock_server.domain.answer import Vectors
from penstock_server.domain.errors import EngineFailed, Overloaded, PenstockError, UnknownModel
from penstock_server.domain.job import FileFormat, InputColumns, Job, JobSpec, RowFailure, RowSelection
from penstock_server.domain.model import ModelKey, ModelManifest, Pooling
from penstock_server.domain.tasks import (
    RequestClass,
    RequestOptions,
    ScoreFunction,
    Task,
    TaskOptions,
    Truncation,
)
from penstock_server.domain.work import BatchTimes, Work
from penstock_server.models.loaded import LoadedModel
from penstock_server.runtime.job_files import FileTasks
from penstock_server.runtime.jobs import JobRunner
from penstock_server.runtime.result_cache import ResultCache
from penstock_server.text.tokenizer import Tokenizer

_T = TypeVar("_T")
MODEL = ModelKey("sums", "3")
WIDTH = 3
SECOND_NS = 1_000_000_000
TOKENS_MAX = 16
# Rounds of the event loop after which nothing moves by itself any more; chains of awaits are far shorter.
_ROUNDS = 150


class InlineExecutor(ThreadPoolExecutor):
    """Runs what is meant for threads at once, so that a test's order of events is always the same."""

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        future: Future[_T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as err:  # noqa: BLE001 - an executor hands every error on
            future.set_exception(err)
        return future


class DirectFiles:
    """Carries file orders out in line."""

    async def materialise(self, order: InputOrder) -> int:
        return carry_out(order).rows

    async def retry(self, order: RetryOrder) -> int:
        return carry_out(order).rows

    async def find(self, order: FindOrder) -> FoundFiles:
        return carry_out(order).found

    async def export(self, order: ExportOrder) -> None:
        carry_out(order)

    async def deliver(self, order: DeliveryOrder) -> None:
        carry_out(order)


class ManualClock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.time_ns = 1_000_000_000

    def now_ns(self) -> int:
        return self.time_ns


def outputs_of(tokens: TokenRows, rows: NDArray[np.int32]) -> NDArray[np.float32]:
    """What the manual lane computes: for each row the sum, the count and the last of its ids."""
    values = [
        (int(ids.sum()), len(ids), int(ids[-2]))
        for row in rows.tolist()
        if len(ids := tokens.ids[tokens.starts[row] : tokens.starts[row + 1]])
    ]
    return np.array(values, np.float32).reshape(-1, WIDTH)


class ManualLane:
    """Computes rows when told to, longest first as the scheduler does. A WorkSubmitter."""

    def __init__(self, cache: ResultCache | None = None) -> None:
        self._cache = cache
        self.queue: list[tuple[Work, list[int]]] = []
        self.computed_rows = 0
        self.arrivals = 0
        self.is_full = False
        self.cost_ns = 1

    def submit(self, work: Work, *, is_again: bool = False) -> None:
        self.arrivals += not is_again
        if self.is_full:
            raise Overloaded("The queue is full.", retry_after_s=0.001)
        lengths = work.tokens.lengths
        self.queue.append((work, sorted(work.rows.tolist(), key=lambda row: -int(lengths[row]))))

    def bulk_ns_per_token(self, model: ModelKey) -> float:
        return 0.1 * SECOND_NS

    def cancel(self, work: Work) -> None:
        work.cancelled = True
        self.queue = [(queued, rows) for queued, rows in self.queue if queued is not work]

    @property
    def waiting_rows(self) -> int:
        return sum(len(rows) for _, rows in self.queue)

    def compute(self, count: int) -> None:
        """Delivers the next rows, from one work after another."""
        for work, rows in self._take(count):
            outputs = outputs_of(work.tokens, rows)
            work.sink.deliver(rows, outputs, BatchTimes(0, 1, self.cost_ns))
            self.computed_rows += len(rows)
            if self._cache is not None:
                self._cache.keep(work.model, work.tenant, work.tokens, rows, outputs)

    def fail(self, count: int, error: PenstockError | None = None) -> None:
        """Fails the next rows."""
        for work, rows in self._take(count):
            work.sink.fail(rows, error or EngineFailed("The engine died on this row."))

    def spoil(self, count: int) -> None:
        """Delivers numbers that are none for the next rows."""
        for work, rows in self._take(count):
            work.sink.deliver(rows, np.full((len(rows), WIDTH), np.nan, np.float32), BatchTimes(0, 1, 1))

    def _take(self, count: int) -> list[tuple[Work, NDArray[np.int32]]]:
        taken: list[tuple[Work, NDArray[np.int32]]] = []
        while count and self.queue:
            work, rows = self.queue[0]
            now, rest = rows[:count], rows[count:]
            count -= len(now)
            self.queue[0:1] = [(work, rest)] if rest else []
            taken.append((work, np.array(now, np.int32)))
        return taken


@dataclass
class OneModel:
    """A model lookup with one model."""

    model: LoadedModel

    def get(self, name: str, version: str) -> LoadedModel:
        if name != self.model.manifest.key.name or version not in ("", MODEL.version):
            raise UnknownModel(f"There is no model {name!r}.")
        return self.model


def sums_model(folder: Path, task: Task = Task.EMBED, name: str = MODEL.name) -> LoadedModel:
    """A model with a real tokenizer that spells every word of a to z."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(_letters_tokenizer()), encoding="utf-8")
    manifest = ModelManifest(
        key=ModelKey(name, MODEL.version),
        folder=folder,
        onnx_path=folder / "model.onnx",
        tokenizer_path=path,
        task=task,
        tokens_max=TOKENS_MAX,
        truncation=Truncation.RIGHT,
        width=WIDTH,
        pooling=Pooling.NONE,
        normalize=False,
        labels=("low", "mid", "high") if task is Task.CLASSIFY else (),
        score_function=ScoreFunction.NONE,
        output_name="out",
        precision="fp32",
        pad_id=0,
    )
    return LoadedModel(manifest, Tokenizer.from_file(path))


def _letters_tokenizer() -> dict[str, Any]:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters)]
    special = [
        {"id": i, "content": words[i], "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False, "special": True}
        for i in range(4)
    ]
    cls, sep = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]"))
    sequences = [{"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB")]
    last = {"SpecialToken": {"id": "[SEP]", "type_id": 1}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [cls, sequences[0], sep],
            "pair": [cls, sequences[0], sep, sequences[1], last],
            "special_tokens": {
                name: {"id": name, "ids": [words.index(name)], "tokens": [name]}
                for name in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: number for number, word in enumerate(words)},
        },
    }


@dataclass
class ReadRow:
    """A result row as tests compare it."""

    row: int
    key: str | int | None
    answer: list[float] | None
    failure: RowFailure | None


class Bench:
    """A runner over a folder, which can be restarted as after a crash."""

    def __init__(self, folder: Path, limits: BulkLimits, task: Task = Task.EMBED) -> None:
        self.folder = folder
        self.limits = limits
        self.model = sums_model(folder / "model", task)
        self.clock = ManualClock()
        self.sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep
        self.files: FileTasks = DirectFiles()
        asyncio.get_running_loop().set_default_executor(InlineExecutor())
        self.lane = ManualLane()
        self.cache: ResultCache | None = None
        self.runner: JobRunner
        self.uploads: UploadStore
        self.store: JobStore
        self.database: Database | None = None

    async def start(self) -> None:
        """Starts a runner over whatever is in the folder."""
        self.database = Database(self.folder / "journal.sqlite")
        self.uploads = UploadStore(self.folder / "uploads", self.database, self.limits, self.clock.now_ns)
        self.store = JobStore(self.database, self.limits, self.clock.now_ns)
        self.lane = ManualLane(self.cache)
        self.runner = JobRunner(
            self.folder / "jobs",
            store=self.store,
            uploads=self.uploads,
            models=OneModel(self.model),
            submitter=self.lane,
            files=self.files,
            clock=self.clock,
            day_ns=self.clock.now_ns,
            limits=self.limits,
            cache=self.cache,
            sleep=lambda seconds: self.sleep(seconds),
        )
        await self.runner.start()
        await settle()

    async def crash(self) -> None:
        """Ends the runner without letting it save anything."""
        assert self.database is not None
        self.database.close()
        await self.runner.close()

    async def stop(self) -> None:
        """Ends the runner as a drain does."""
        assert self.database is not None
        await self.runner.close()
        self.database.close()

    def upload(self, file_name: str, data: bytes) -> str:
        """Uploads a file in one chunk."""
        session = self.uploads.open(file_name, len(data))
        session.append(0, data)
        assert session.finish().is_complete
        return session.upload_id

    def spec(self, upload_id: str, **changes: Any) -> JobSpec:
        """A spec over a JSONL upload with the columns text and id."""
        spec = JobSpec(
            model=ModelKey(MODEL.name, ""),
            task=TaskOptions(self.model.manifest.task),
            upload_id=upload_id,
            input_format=FileFormat.JSONL,
            columns=InputColumns("text", None, "id"),
            options=RequestOptions(request_class=RequestClass.BULK),
        )
        return replace(spec, **changes)

    async def submit(self, texts: Sequence[object], **changes: Any) -> Job:
        """Makes a job over texts, with keys k0, k1, and so on."""
        lines = [json.dumps({"id": f"k{row}", "text": text}) for row, text in enumerate(texts)]
        upload_id = self.upload("rows.jsonl", ("\n".join(lines) + "\n").encode())
        job = await self.runner.create(self.spec(upload_id, **changes))
        await settle()
        return job

    async def read(
        self,
        job_id: str,
        *,
        start_row: int = 0,
        rows_max: int = 0,
        selection: RowSelection = RowSelection.ALL,
    ) -> list[ReadRow]:
        """Reads result rows."""
        rows: list[ReadRow] = []
        chunks = self.runner.rows(job_id, start_row=start_row, rows_max=rows_max, selection=selection)
        async for chunk in chunks:
            answers = chunk.part.answers
            values = answers.values if isinstance(answers, Vectors) else None
            indices: list[int] = chunk.indices.tolist()
            for index in indices:
                failure = chunk.part.failures.get(index)
                answer = None if failure or values is None else values[index].tolist()
                rows.append(ReadRow(chunk.start_row + index, chunk.keys[index], answer, failure))
        return rows

    async def finish(self, job_id: str) -> Job:
        """Computes until a job has ended."""
        while not (job := await self.runner.get(job_id)).state.has_ended:
            assert self.lane.waiting_rows, f"{job} does not go on"
            self.lane.compute(self.lane.waiting_rows)
            await settle()
        return job

    def expected(self, texts: Sequence[str]) -> list[list[float]]:
        """The answers of texts, computed one by one."""
        answers: list[list[float]] = []
        for text in texts:
            tokens = self.model.tokenizer.encode([text], tokens_max=TOKENS_MAX, truncation=Truncation.RIGHT)
            answers.extend(outputs_of(tokens, np.zeros(1, np.int32)).tolist())
        return answers


@asynccontextmanager
async def running_bench(folder: Path, limits: BulkLimits) -> AsyncGenerator[Bench]:
    """A bench that has been started; stopped as by a drain at the end."""
    bench = Bench(folder, limits)
    await bench.start()
    yield bench
    await bench.stop()


class _BareContext:
    """All that BulkServicer asks a call for, of a caller who says nothing."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()


BARE_CONTEXT = cast(Context, _BareContext())


class TurnedTime:
    """The bench's clock, with sleepers that wake when it is turned."""

    def __init__(self, bench: Bench) -> None:
        self._clock = bench.clock
        self._turned = asyncio.Event()
        bench.sleep = self._sleep

    def in_s(self, seconds: float) -> int:
        return self._clock.time_ns + round(seconds * SECOND_NS)

    async def pass_s(self, seconds: float) -> None:
        self._clock.time_ns += round(seconds * SECOND_NS)
        self._turned.set()
        self._turned = asyncio.Event()
        await settle()

    async def _sleep(self, seconds: float) -> None:
        until_ns = self.in_s(seconds)
        while self._clock.time_ns < until_ns:
            await self._turned.wait()


async def settle() -> None:
    """Lets everything happen that needs no more input."""
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)
