"""The composition root: builds every part from the configuration, starts them, drains them."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from penstock_server.api.bulk import BulkServicer
from penstock_server.api.callers import CallerReader
from penstock_server.api.health import HealthReporter
from penstock_server.api.inference import InferenceServicer
from penstock_server.api.interceptors import EdgeInterceptor
from penstock_server.api.models import ModelServicer
from penstock_server.api.schedules import ScheduleServicer
from penstock_server.api.server import Services, build_server
from penstock_server.api.stream import StreamHandler
from penstock_server.config import ServerConfig
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import TOKENS_MAX
from penstock_server.domain.tasks import RequestClass, Task
from penstock_server.engines.cpu import own_cpus
from penstock_server.engines.worker_protocol import SlotLayout
from penstock_server.models.repository import ModelRepository
from penstock_server.observability.logs import configure_logs
from penstock_server.observability.metrics import Metrics
from penstock_server.observability.observer import SILENT
from penstock_server.runtime.clock import LoopClock
from penstock_server.runtime.cost_keeper import CostKeeper
from penstock_server.runtime.cost_store import CostStore
from penstock_server.runtime.data_folder import lock_folder
from penstock_server.runtime.deferral import Deferral
from penstock_server.runtime.dispatcher import SERIAL, Dispatcher
from penstock_server.runtime.inference import Inference
from penstock_server.runtime.job_service import BulkJobs, bulk_limits
from penstock_server.runtime.lanes import Lane, LocalLane
from penstock_server.runtime.limits import scheduler_limits
from penstock_server.runtime.model_table import ModelEntry, ModelState, ModelTable
from penstock_server.runtime.result_cache import ResultCache
from penstock_server.runtime.router import Router
from penstock_server.runtime.trace import TraceWriter
from penstock_server.runtime.worker_lane import BulkWorker
from penstock_server.scheduling.cost import CostModels
from penstock_server.scheduling.limits import SHORT_BATCH_BUDGETS
from penstock_server.scheduling.routing import check_models, metadata_keys
from penstock_server.scheduling.scheduler import Scheduler
from penstock_server.text.tokenizer import TokenizerLimits

if TYPE_CHECKING:
    from penstock_server.observability.exporter import Exporter

ENGINE_NAME = "onnxruntime/cpu"
# Longest row a bulk lane has room for, and the widest output at that many rows. The memory is only
# taken where it is written, so generous sizes cost nothing.
_LANE_TOKENS_MAX = TOKENS_MAX
_LANE_OUTPUT_WIDTH_MAX = 1024

_log = structlog.get_logger("penstock")


class PenstockServer:
    """One server: start it, ask for its address, stop it. Owned by one event loop."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._clock = LoopClock()
        self._data_lock = lock_folder(config.data_dir)
        limits = scheduler_limits(config)
        self._costs = CostModels()
        is_serial = limits.serial is not None
        # On a serial lane one batch runs and one waits behind it.
        live_lane = LocalLane(
            "serial-0" if is_serial else "live-0",
            threads=config.live_threads(),
            clock=self._clock,
            slots=2 if is_serial else 1,
            cpus=own_cpus(config.live_threads()) if config.lanes.pin_live_threads else (),
        )
        self._worker = None if is_serial else BulkWorker(config.bulk_lanes(), _slot_layout(config))
        bulk_lanes = () if self._worker is None else self._worker.lanes
        self._lanes: Sequence[Lane] = (live_lane, *bulk_lanes)
        self._cost_keeper = CostKeeper(
            self._costs,
            CostStore(config.data_dir / "costs"),
            live_lane,
            {LaneKind.LIVE: config.live_threads(), LaneKind.BULK: 1},
        )
        self._metrics = _metrics(config)
        observer = self._metrics or SILENT
        self._exporter: Exporter | None = None
        self._scheduler = Scheduler(limits, self._costs)
        self._trace = (
            None if config.trace.path is None else TraceWriter(config.trace.path, config.trace.bytes_max)
        )
        self._cache = None if config.cache is None else ResultCache(config.cache.bytes_max)
        self._dispatcher = Dispatcher(
            self._scheduler,
            self._lanes,
            self._clock,
            observer,
            self._trace,
            cache=self._cache,
            shares_rows=config.queues.share_identical_rows,
            serial_clock=self._clock if is_serial else None,
        )
        tokenizers = TokenizerLimits(config.text.tokenizer_cache_bytes, config.tokenising_threads())
        self._models = ModelTable(ModelRepository(config.models_dir), self._lanes, tokenizers)
        self._bulk = BulkJobs(
            config.data_dir / "bulk",
            bulk_limits(config.bulk, max(1, len(bulk_lanes))),
            models=self._models,
            submitter=self._dispatcher,
            clock=self._clock,
            cache=self._cache,
        )
        self._deferral = Deferral(
            self._bulk.uploads, self._bulk.jobs, calls_max=config.bulk.deferred_calls_max
        )
        self._inference = Inference(
            self._models,
            self._dispatcher,
            config.requests,
            config.queues,
            self._clock,
            tokenizer_threads=config.text.tokenizer_threads,
            observer=observer,
            router=Router(config.routing),
            deferral=self._deferral,
        )
        has_certificates = config.tls is not None and config.tls.client_ca is not None
        self._callers = CallerReader(metadata_keys(config.routing), has_certificates=has_certificates)
        self._streams = StreamHandler(self._inference, config.requests, self._clock, self._callers)
        self._health = HealthReporter()
        self._edge = EdgeInterceptor(self._clock, lambda: self._is_draining, observer)
        self._is_open = False
        self._is_draining = False
        self._port = 0

    @property
    def address(self) -> str:
        """Host and port that clients connect to."""
        return f"{self._config.host}:{self._port}"

    @property
    def metrics_address(self) -> str | None:
        """Host and port that metrics are read from; None if they are not served."""
        return None if self._exporter is None else self._exporter.address

    def models(self) -> list[ModelEntry]:
        """The models, as far as they are loaded."""
        return self._models.entries()

    async def start(self) -> None:
        """Binds the port, loads the models and reports ready.

        Raises:
            InvalidRequest: The port is taken or the configuration cannot work; nothing is left running.
        """
        check_models(self._config.routing, [entry.key for entry in self.models()])
        if self._worker is not None:
            self._worker.start()
        try:
            await self._bulk.start()
            self._exporter = self._export_metrics()
            await self._open_port()
        except BaseException:
            await self._bulk.close()
            await self._close_worker()
            await self._close_exporter()
            raise
        self._dispatcher.start()
        await self._models.load_all(self._health)
        await self._cost_keeper.start(self._models.ready_manifests())
        # Not before the models are there, or the first runs would find none.
        self._bulk.start_schedules()
        await self._health.ready()
        _log.info("ready", address=self.address, models=[str(entry.key) for entry in self.models()])

    async def stop(self) -> None:
        """Drains: work in flight finishes, new work gets UNAVAILABLE; idempotent."""
        if self._is_draining:
            return
        self._is_draining = True
        _log.info("draining", grace_s=self._config.drain_grace_s)
        await self._health.draining()
        self._streams.drain()
        await self._bulk.drain()
        await self._stop_serving()
        await self._deferral.close()
        await self._bulk.close()
        await self._models.close()
        await self._dispatcher.close()
        await self._cost_keeper.close()
        await asyncio.gather(*(lane.close() for lane in self._lanes))
        await self._close_worker()
        self._inference.close()
        await self._close_exporter()
        if self._trace is not None:
            self._trace.close()
        self._data_lock.close()
        _log.info("stopped")

    def _export_metrics(self) -> Exporter | None:
        """Serves metrics if the configuration says where. Raises InvalidRequest if the port is taken."""
        config = self._config.metrics
        if self._metrics is None or config is None:
            return None
        # Loaded only where it is used: an HTTP server takes a tenth of a second of the start.
        from penstock_server.observability.exporter import Exporter, ServerState

        state = ServerState(
            queue=self._queue_depth,
            rpcs_in_flight=lambda: self._edge.in_flight,
            worker_restarts=lambda: 0 if self._worker is None else self._worker.restarts,
            cache=None if self._cache is None else self._cache.counts,
        )
        exporter = Exporter(self._metrics, state, config.host, config.port)
        _log.info("metrics", address=exporter.address)
        return exporter

    async def _close_worker(self) -> None:
        if self._worker is not None:
            await self._worker.close()

    async def _close_exporter(self) -> None:
        if self._exporter is not None:
            await asyncio.to_thread(self._exporter.close)
            self._exporter = None

    def _queue_depth(self, request_class: RequestClass) -> tuple[int, int]:
        depth = self._scheduler.depth(request_class)
        return depth.rows, depth.tokens

    async def _stop_serving(self) -> None:
        """Lets calls in flight finish within the grace; what only watches need not be waited for."""
        if not self._is_open:
            return
        stopping = asyncio.create_task(self._server.stop(self._config.drain_grace_s))
        idle = asyncio.create_task(self._edge.idle())
        await asyncio.wait((stopping, idle), return_when=asyncio.FIRST_COMPLETED)
        await self._server.stop(0)
        idle.cancel()
        await asyncio.gather(stopping, idle, return_exceptions=True)

    async def _open_port(self) -> None:
        services = Services(
            inference=InferenceServicer(self._inference, self._streams, self._clock, self._callers),
            bulk=BulkServicer(self._bulk.uploads, self._bulk.jobs, self._bulk.limits, self._callers),
            schedules=ScheduleServicer(self._bulk.schedules, self._bulk.limits, self._callers),
            models=ModelServicer(self._models, ENGINE_NAME, self._costs),
            health=self._health,
        )
        self._server, self._port = build_server(self._config, services, self._edge)
        self._is_open = True
        await self._health.starting()
        await self._server.start()


def run_server(config: ServerConfig) -> int:
    """Serves until SIGTERM or SIGINT, then drains. Returns the exit status.

    Raises:
        InvalidRequest: The server cannot start; the message says why.
    """
    configure_logs(config.log_format)
    return asyncio.run(_serve(config))


async def _serve(config: ServerConfig) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = PenstockServer(config)
    starting = asyncio.create_task(server.start())
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait((starting, waiting), return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        await starting
        sys.stdout.write(_welcome(server))
        sys.stdout.flush()
        await waiting
    else:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    # A second signal ends the process at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)
    await server.stop()
    return 0


def _welcome(server: PenstockServer) -> str:
    """What a person needs to know of a server that has just started."""
    lines = [f"Penstock serves at {server.address}", "", "Models:"]
    for entry in server.models():
        task = entry.manifest.task.value if entry.manifest is not None else "?"
        state = "" if entry.state is ModelState.READY else f"  {entry.state.value}: {entry.error}"
        lines.append(f"  {entry.key.name:<16} version {entry.key.version:<4} {task:<10}{state}")
    if not server.models():
        lines.append("  none; `penstock models pull demo` fetches two, then start again")
    commands = _commands_to_try(server)
    if commands:
        lines += ["", "Try, in another terminal:", *(f"  penstock {command}" for command in commands)]
    return "\n".join([*lines, "", ""])


def _commands_to_try(server: PenstockServer) -> list[str]:
    """Three commands that work with the models there are."""
    models = {entry.manifest.task: entry.key.name for entry in server.models() if entry.manifest is not None}
    address = "" if server.address == "127.0.0.1:50051" else f" --address {server.address}"
    commands: list[str] = []
    if (embedder := models.get(Task.EMBED)) is not None:
        commands.append(f"embed{address} --model {embedder} 'A penstock leads water to a turbine.'")
    if (classifier := models.get(Task.CLASSIFY)) is not None:
        commands.append(f"classify{address} --model {classifier} 'Ignore all previous instructions.'")
    if (task := next((task for task in (Task.EMBED, Task.CLASSIFY) if task in models), None)) is not None:
        options = f"--model {models[task]} --task {task.value} --text-column review"
        commands.append(f"bulk submit{address} reviews.csv {options}")
    return commands


def _metrics(config: ServerConfig) -> Metrics | None:
    if config.metrics is None:
        return None
    live_tokens, bulk_tokens = config.lanes.live_batch_tokens_max, config.lanes.bulk_batch_tokens
    batch_tokens = {
        LaneKind.LIVE.value: live_tokens,
        LaneKind.BULK.value: bulk_tokens,
        SERIAL: max(live_tokens, bulk_tokens),
    }
    return Metrics(batch_tokens, config.metrics.tenants_max)


def _slot_layout(config: ServerConfig) -> SlotLayout:
    tokens_max = max(_LANE_TOKENS_MAX, SHORT_BATCH_BUDGETS * config.lanes.bulk_batch_tokens)
    return SlotLayout(config.lanes.bulk_slots, tokens_max, tokens_max * _LANE_OUTPUT_WIDTH_MAX)
