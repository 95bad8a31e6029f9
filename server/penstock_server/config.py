"""Configuration: every limit has a name, a unit and a default here.

Values come from defaults, then a TOML file (``--config``), then command-line flags. Relations between limits
are checked once, at start.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Generator
from pathlib import Path
from typing import Literal

import msgspec

from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.routing import RoutingRule

# Limits above this are slips of the pen: an exbibyte, or 2^60 of anything.
_LIMIT_MAX = 1 << 60
_ZERO_CHOOSES = frozenset({"live_threads", "bulk_lanes"})
_ZERO_IS_OFF = frozenset({"bulk_short_us"})
# Parts of a whole, which have a rule of their own.
_PARTS = frozenset({"bulk_share", "bulk_beside_flex"})
_SWITCHES = frozenset({"share_identical_rows", "pin_live_threads"})
# Values that are no numbers.
_WORDS = frozenset({"kind", "serial", "input_roots", "output_roots"})
_COUNTS_MAX = {
    # A tokenizer takes as many threads as these two together, and the event loop.
    "tokenizer_threads": 1024,
    "jobs_running_max": 1024,
    "small_jobs_running_max": 1024,
    "tokenizer_cache_bytes": 1 << 30,
    "live_threads": 1024,
    "bulk_lanes": 1024,
    "bulk_slots": 64,
    "lookahead_rows": 4096,
    "windows_in_memory_max": 64,
    "window_rows": 1 << 20,
    "upload_days_max": 3650,
    "message_bytes_max": (1 << 31) - 1,
    "concurrent_rpcs_max": 1 << 20,
    "bulk_batch_tokens": 1 << 20,
    "live_batch_tokens_max": 1 << 20,
}
_DRAIN_MAX_S = 3600
# Each has some kilobytes in every scrape.
_METRIC_TENANTS_MAX = 10_000
# Each request looks at all of them until one matches, at about a third of a microsecond.
_ROUTING_RULES_MAX = 100
# More would leave live work less than half of its own lane.
_BULK_SHARE_MAX = 0.5
# More would leave FLEX less than BULK, which is the less urgent one.
_BULK_BESIDE_FLEX_MAX = 0.5
# A live call that waits longer than a minute for other work is none.
_SERIAL_US_MAX = 60_000_000
_WEIGHT_MAX = 1e6


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration file; unknown names are errors."""


class RequestLimits(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a single request may hold."""

    rows_max: int = 1024
    text_bytes_max: int = 1 << 20
    message_bytes_max: int = 32 << 20
    concurrent_rpcs_max: int = 4096
    tokenising_chars_max: int = 64 << 20
    tokenize_tokens_max: int = 1 << 20
    stream_in_flight_default: int = 64
    stream_in_flight_max: int = 1024
    id_bytes_max: int = 128


class QueueLimits(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much may wait; full means refuse now.

    The live default is about five seconds of MiniLM on two cores (7,000 tokens a second, ``make bench``),
    more than any live deadline that makes sense on a CPU. Calls that ask for no class are live up to
    ``live_request_tokens_max``, about half a second there, and FLEX above. With ``share_identical_rows``, a
    row that is the same as one in flight is computed once with it.
    """

    live_tokens_max: int = 32_768
    live_request_tokens_max: int = 4096
    flex_tokens_max: int = 1 << 20
    bulk_tokens_max: int = 1 << 24
    share_identical_rows: bool = True


class TextLimits(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How texts are turned into tokens.

    A model's tokenizer runs in as many threads at once as tokenise: the event loop for small requests,
    ``tokenizer_threads`` for large ones, and one for each running bulk job. Each keeps the tokens of frequent
    words in ``tokenizer_cache_bytes`` of its own. Its two tables are powers of two in size: 6 MiB are filled,
    4 MiB would be used as 3. Measured, 6 MiB give a third more speed than 4 on English passages.
    """

    tokenizer_cache_bytes: int = 6 << 20
    tokenizer_threads: int = 2


class TlsConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificate chain and private key, PEM files.

    With ``client_ca`` only clients with a certificate of that authority are let in.
    """

    certificate: Path
    private_key: Path
    client_ca: Path | None = None


class SerialConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times of batches on a serial lane, as predicted.

    Without live rows a batch takes at most ``block_us``, a single row excepted: what a live call may have to
    wait for. Live batches are filled with bulk rows up to ``fill_us_max``. The next batch is chosen
    ``bind_ahead_us`` before the running one ends: 300 for planning and packing, and the millisecond by which
    timers of the event loop may be late.
    """

    block_us: int = 20_000
    fill_us_max: int = 40_000
    bind_ahead_us: int = 1300


class LaneConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How engines share the machine.

    ``live_batch_tokens_max`` bounds how long a live batch blocks the next one; ``bulk_batch_tokens`` is the
    size at which length-sorted bulk batches were most efficient on single-thread sessions (252-276 rows/s on
    two cores against 70-76 for unsorted batches of 32 rows; MiniLM fp32, review sentences).
    Bulk batches that take less than ``bulk_short_us`` have up to four times the tokens, since each takes 0.6
    to 0.9 ms of the event loop beside its lane (2026-11-27). ``bulk_share`` is
    the part of the live lane's time that FLEX and BULK get though live work waits, ``bulk_beside_flex`` the
    part of the time of both that BULK gets though FLEX waits. With ``kind`` "split" bulk batches run in a
    process of idle priority beside the live lane, with "serial" one after the other with live ones.
    ``pin_live_threads`` keeps each live thread on a core of its own where there are just as many of them as
    the process may use.
    """

    kind: Literal["split", "serial"] = "split"
    live_threads: int = 0
    pin_live_threads: bool = True
    live_batch_tokens_max: int = 512
    bulk_lanes: int = 0
    bulk_batch_tokens: int = 256
    bulk_short_us: int = 40_000
    bulk_slots: int = 2
    lookahead_rows: int = 64
    bulk_share: float = 0.02
    bulk_beside_flex: float = 0.1
    serial: SerialConfig = SerialConfig()


class BulkConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bulk jobs.

    ``jobs_running_max`` jobs compute at once, each with ``windows_in_memory_max`` windows, in turns of their
    tenants. Jobs of at most one window have ``small_jobs_running_max`` places beside them, of which a tenant
    takes no more than it leaves free. Calls demoted to BULK become jobs if they cannot be computed while they
    last, at most ``deferred_calls_max`` at once: each takes about ten fsyncs within half a second. Inputs
    that are no uploads must be below ``input_roots``, and results that are delivered go below
    ``output_roots``: URLs or absolute paths, in which ``{tenant}`` stands for the job's tenant. Uploads that
    no job uses are deleted when nobody has gone on with them for ``upload_days_max``.
    """

    jobs_running_max: int = 2
    small_jobs_running_max: int = 8
    window_rows: int = 4096
    upload_bytes_max: int = 8 << 30
    upload_days_max: int = 7
    windows_in_memory_max: int = 2
    deferred_calls_max: int = 16
    input_roots: tuple[str, ...] = ()
    output_roots: tuple[str, ...] = ()


class TenantConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tenant gets of the lanes.

    ``weight`` is its share against the others that want it. ``tokens_per_s`` bounds what it may submit in the
    long run and ``burst_tokens`` at once after a pause, one second's tokens by default; ``queue_tokens_max``
    bounds its tokens that wait. 0 means no limit. Rows of jobs count for the weight only.
    """

    weight: float = 1.0
    tokens_per_s: float = 0.0
    burst_tokens: float = 0.0
    queue_tokens_max: int = 0


class TenantsConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tenants by name, and all others; who names none is one of them, without a name."""

    default: TenantConfig = TenantConfig()
    named: dict[str, TenantConfig] = msgspec.field(default_factory=dict[str, TenantConfig])


class MetricsConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Metrics over HTTP, in Prometheus' text format; without this section there are none.

    Whoever reaches the port can read them, so it must be a loopback address unless ``allow_insecure`` is set.
    The port is the one that OpenTelemetry's exporters use; 0 takes any free one. Each of ``tenants_max``
    tenants has numbers of its own, those who come later share theirs.
    """

    host: str = "127.0.0.1"
    port: int = 9464
    tenants_max: int = 100


class CacheConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Outputs that are kept for those who ask for the same rows again, calls and jobs alike.

    Off without this section. An embedding of 384 numbers takes 1.7 KB, so that the default keeps 150,000.
    """

    bytes_max: int = 256 << 20


class TraceConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Recording what arrives, for ``penstock simulate``: times and lengths, no texts and no names.

    Off without a ``path``. A live call takes about 100 bytes, a job about 4 bytes a row.
    """

    path: Path | None = None
    bytes_max: int = 256 << 20


class ServerConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration of one server."""

    host: str = "127.0.0.1"
    port: int = 50051
    models_dir: Path = Path("models")
    data_dir: Path = Path("data")
    log_format: Literal["console", "json"] = "console"
    drain_grace_s: float = 30.0
    tls: TlsConfig | None = None
    allow_insecure: bool = False
    requests: RequestLimits = RequestLimits()
    queues: QueueLimits = QueueLimits()
    lanes: LaneConfig = LaneConfig()
    bulk: BulkConfig = BulkConfig()
    text: TextLimits = TextLimits()
    metrics: MetricsConfig | None = None
    routing: tuple[RoutingRule, ...] = ()
    tenants: TenantsConfig = TenantsConfig()
    cache: CacheConfig | None = None
    trace: TraceConfig = TraceConfig()

    def live_threads(self) -> int:
        """Threads of the live engine: as configured, or all cores this process may use."""
        return self.lanes.live_threads or usable_cores()

    def tokenising_threads(self) -> int:
        """Threads that may be in one model's tokenizer at once: the loop, for large requests, for bulk."""
        return 1 + self.text.tokenizer_threads + self.bulk.jobs_running_max

    def bulk_lanes(self) -> int:
        """Single-thread bulk lanes: as configured, or one for each usable core."""
        return self.lanes.bulk_lanes or usable_cores()


def usable_cores() -> int:
    """Cores this process may run on, as its affinity mask says."""
    return max(1, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load_config(path: Path | None = None, **overrides: object) -> ServerConfig:
    """Builds and checks the configuration.

    Args:
        path: A TOML file, or None for defaults.
        overrides: Top-level values that win over the file; None means not given.

    Raises:
        InvalidRequest: The file cannot be read, has an unknown name or a wrong value, or limits contradict
            each other. The message names the file and the value.
    """
    raw: dict[str, object] = {}
    if path is not None:
        try:
            raw = msgspec.toml.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError) as err:
            raise InvalidRequest(f"Cannot read the configuration file {path}: {err}") from err
    raw.update({name: value for name, value in overrides.items() if value is not None})
    try:
        config = msgspec.convert(raw, ServerConfig, strict=False, dec_hook=_decode_path)
    except msgspec.ValidationError as err:
        raise InvalidRequest(f"Wrong configuration{f' in {path}' if path else ''}: {err}") from err
    _check(config)
    return config


def _decode_path(kind: type, value: object) -> object:
    if kind is Path:
        return value if isinstance(value, Path) else Path(str(value))
    raise NotImplementedError(kind)


def _check(config: ServerConfig) -> None:
    """Checks each limit and the relations between them."""
    for message in (*_wrong_limits(config), *_wrong_relations(config)):
        raise InvalidRequest(f"Wrong configuration: {message}.")


def _wrong_limits(config: ServerConfig) -> Generator[str]:
    """Names every limit that is below one, but where 0 has a meaning of its own, or absurdly large."""
    for section in ("requests", "queues", "lanes", "bulk", "text"):
        for name, value in msgspec.structs.asdict(getattr(config, section)).items():
            if name in _PARTS | _SWITCHES | _WORDS:
                continue
            low = 0 if name in _ZERO_CHOOSES | _ZERO_IS_OFF else 1
            high = _COUNTS_MAX.get(name, _LIMIT_MAX)
            if not low <= value <= high:
                yield f"{section}.{name} must be from {low:,} to {high:,}, but is {value:,}"


def _wrong_relations(config: ServerConfig) -> Generator[str]:
    rules = [
        (0 <= config.port <= 65535, "port must be from 0 (any free port) to 65535"),
        (
            config.tls is not None or config.allow_insecure or is_loopback(config.host),
            f"host {config.host!r} can be reached from other machines without TLS; set [tls], or "
            "allow_insecure = true where the network is trusted",
        ),
        (1 <= config.trace.bytes_max <= _LIMIT_MAX, "trace.bytes_max must be at least 1"),
        (
            config.cache is None or 1 <= config.cache.bytes_max <= _LIMIT_MAX,
            "cache.bytes_max must be at least 1; leave [cache] out to keep no outputs",
        ),
        (0 <= config.drain_grace_s <= _DRAIN_MAX_S, f"drain_grace_s must be from 0 to {_DRAIN_MAX_S}"),
        (
            config.queues.live_tokens_max >= config.lanes.live_batch_tokens_max,
            "queues.live_tokens_max must be at least lanes.live_batch_tokens_max, or no live batch fills",
        ),
        (
            config.queues.live_tokens_max >= config.queues.live_request_tokens_max,
            "queues.live_tokens_max must be at least queues.live_request_tokens_max",
        ),
        (
            config.requests.text_bytes_max < config.requests.message_bytes_max,
            "requests.text_bytes_max must be below requests.message_bytes_max",
        ),
        (
            config.requests.stream_in_flight_default <= config.requests.stream_in_flight_max,
            "requests.stream_in_flight_default must not be above stream_in_flight_max",
        ),
    ]
    if config.metrics is not None:
        rules += _metrics_rules(config, config.metrics)
    rules += _lane_rules(config.lanes)
    rules += _routing_rules(config.routing)
    rules += _tenant_rules(config.tenants)
    yield from (message for holds, message in rules if not holds)


def _lane_rules(lanes: LaneConfig) -> list[tuple[bool, str]]:
    serial = lanes.serial
    return [
        (
            0 <= lanes.bulk_share <= _BULK_SHARE_MAX,
            f"lanes.bulk_share must be from 0 (none while live work waits) to {_BULK_SHARE_MAX}",
        ),
        (
            0 <= lanes.bulk_beside_flex <= _BULK_BESIDE_FLEX_MAX,
            f"lanes.bulk_beside_flex must be from 0 (none while FLEX waits) to {_BULK_BESIDE_FLEX_MAX}",
        ),
        (
            lanes.kind == "split" or not lanes.bulk_lanes,
            'lanes.bulk_lanes has no meaning with lanes.kind = "serial", where bulk runs on the live lane',
        ),
        *(
            (1 <= value <= _SERIAL_US_MAX, f"lanes.serial.{name} must be from 1 to {_SERIAL_US_MAX:,}")
            for name, value in msgspec.structs.asdict(serial).items()
        ),
        (
            serial.bind_ahead_us < serial.block_us,
            "lanes.serial.bind_ahead_us must be below block_us, or batches are chosen before their time",
        ),
        (
            serial.block_us <= serial.fill_us_max,
            "lanes.serial.fill_us_max must be at least block_us, or bulk rows gain by running apart",
        ),
    ]


def _metrics_rules(config: ServerConfig, metrics: MetricsConfig) -> list[tuple[bool, str]]:
    return [
        (0 <= metrics.port <= 65535, "metrics.port must be from 0 (any free port) to 65535"),
        (
            0 <= metrics.tenants_max <= _METRIC_TENANTS_MAX,
            f"metrics.tenants_max must be from 0 to {_METRIC_TENANTS_MAX:,}",
        ),
        (
            config.allow_insecure or is_loopback(metrics.host),
            f"metrics.host {metrics.host!r} can be reached from other machines, which could read them all; "
            "use 127.0.0.1, or allow_insecure = true where the network is trusted",
        ),
    ]


def _routing_rules(rules: tuple[RoutingRule, ...]) -> list[tuple[bool, str]]:
    names = [rule.name for rule in rules]
    return [
        (len(rules) <= _ROUTING_RULES_MAX, f"routing may have at most {_ROUTING_RULES_MAX} rules"),
        (len(set(names)) == len(names), "each routing rule needs a name of its own"),
        *(
            (False, f"routing rule {index} ({rule.name!r}) {problem}")
            for index, rule in enumerate(rules, start=1)
            for problem in rule.problems()
        ),
    ]


def _tenant_rules(tenants: TenantsConfig) -> Generator[tuple[bool, str]]:
    for where, tenant in (
        ("default", tenants.default),
        *((f"named.{n}", t) for n, t in tenants.named.items()),
    ):
        yield (
            0 < tenant.weight <= _WEIGHT_MAX,
            f"tenants.{where}.weight must be above 0, up to {_WEIGHT_MAX:,.0f}",
        )
        for name in ("tokens_per_s", "burst_tokens", "queue_tokens_max"):
            number = getattr(tenant, name)
            yield 0 <= number <= _LIMIT_MAX, f"tenants.{where}.{name} must be positive, or 0 for no limit"
        yield (
            not tenant.burst_tokens or bool(tenant.tokens_per_s),
            f"tenants.{where}.burst_tokens needs tokens_per_s, whose bursts it bounds",
        )
