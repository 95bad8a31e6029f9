"""Scenarios from files and options, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from penstock_server.domain.errors import InvalidRequest
from penstock_server.simulation.scenario import BulkJob, LiveTraffic, Scenario, TenantMix

# A simulated hour of a busy two-core server takes about a minute; more than a day is a slip of the pen.
_DURATION_MAX_S = 86_400.0


def load_scenario(path: Path) -> Scenario:
    """Reads a scenario file; paths in it are relative to its folder.

    Raises:
        InvalidRequest: It cannot be read, or a value is wrong; the message names both.
    """
    try:
        raw = msgspec.toml.decode(path.read_bytes())
        scenario = msgspec.convert(raw, Scenario, strict=False, dec_hook=_path_in(path.parent))
    except OSError as err:
        raise InvalidRequest(f"Cannot read the scenario {path}: {err.strerror}.") from err
    except (msgspec.DecodeError, msgspec.ValidationError) as err:
        raise InvalidRequest(f"Wrong scenario in {path}: {err}") from err
    check_scenario(scenario)
    return scenario


def check_scenario(scenario: Scenario) -> None:
    """Checks values and their relations.

    Raises:
        InvalidRequest: One is wrong; the message names it.
    """
    for holds, message in (*_general_rules(scenario), *_live_rules(scenario.live)):
        if not holds:
            raise InvalidRequest(f"Wrong scenario: {message}.")


def _general_rules(scenario: Scenario) -> list[tuple[bool, str]]:
    machine, noise, bulk, peers = scenario.machine, scenario.noise, scenario.bulk, scenario.peers
    counts = (machine.cores, machine.bulk_slots, bulk.window_rows, bulk.windows_in_memory, bulk.peer_rows)
    sizes = (peers.batch_rows_max, peers.batch_tokens_max, peers.queue_rows_max)
    spreads = (noise.sigma, noise.drift_sigma, noise.stalls_per_s, noise.stall_ms, peers.batch_timeout_ms)
    delays = (machine.live_gap_us, machine.bulk_gap_us, machine.answer_us, machine.call_us, machine.edge_us)
    names = [job.name for job in bulk.jobs]
    return [
        (0 < scenario.duration_s <= _DURATION_MAX_S, f"duration_s must be up to {_DURATION_MAX_S:,.0f}"),
        (0 <= scenario.warm_up_s < scenario.duration_s, "warm_up_s must be below duration_s"),
        (0.01 <= scenario.table_error <= 100, "table_error must be from 0.01 to 100"),
        (all(1 <= count <= 1 << 20 for count in (*counts, *sizes)), "counts must be from 1 to 1,048,576"),
        (1 <= bulk.peer_requests_in_flight <= 4096, "bulk.peer_requests_in_flight must be from 1 to 4,096"),
        (0 <= machine.bulk_lanes <= 1024, "machine.bulk_lanes must be from 0 to 1,024"),
        (0 <= machine.live_threads <= machine.cores, "machine.live_threads must be from 0 to machine.cores"),
        (all(value >= 0 for value in (*spreads, *delays)), "noise and delays must not be negative"),
        (
            noise.drift_s > 0 and noise.live_beside_bulk > 0,
            "noise.drift_s and live_beside_bulk must be above 0",
        ),
        (len(set(names)) == len(names), "bulk.jobs must have names of their own"),
        (all(job.weight > 0 and job.start_s >= 0 for job in bulk.jobs), "a job's weight must be above 0"),
        (scenario.live is not None or bool(bulk.jobs), "there must be live calls or a bulk job"),
    ]


def _live_rules(live: LiveTraffic | None) -> list[tuple[bool, str]]:
    if live is None:
        return []
    shares = (live.critical_share, live.flex_share, live.cancel_share)
    return [
        (live.rate > 0, "live.rate must be above 0"),
        (live.overload is None or 0 < live.overload <= 1000, "live.overload must be above 0, up to 1,000"),
        (live.arrivals != "trace" or live.trace is not None, "live.arrivals = 'trace' needs live.trace"),
        (1 <= live.rows <= 1024, "live.rows must be from 1 to 1,024"),
        (live.deadline_ms >= 0, "live.deadline_ms must not be negative; 0 means none"),
        (
            live.burst_ratio >= 1 and min(live.calm_s, live.busy_s) > 0,
            "MMPP: burst_ratio >= 1, states above 0 s",
        ),
        (all(0 <= share <= 1 for share in shares), "shares must be from 0 to 1"),
        (
            live.critical_share + live.flex_share <= 1,
            "critical_share and flex_share must not exceed 1 together",
        ),
        (bool(live.tenants), "live.tenants must not be empty"),
        (
            all(tenant.share > 0 and tenant.weight > 0 for tenant in live.tenants),
            "tenants' shares and weights must be above 0",
        ),
    ]


def _path_in(folder: Path) -> Callable[[type, object], object]:
    def decode(kind: type, value: object) -> object:
        if kind is Path:
            return folder / str(value)
        raise NotImplementedError(kind)

    return decode


def changed(
    scenario: Scenario,
    *,
    live_rate: float | None = None,
    overload: float | None = None,
    arrivals: str | None = None,
    deadline_ms: float | None = None,
    lengths: str | None = None,
    rows: int | None = None,
    tenants: Sequence[str] = (),
    has_bulk: bool = False,
    cores: int | None = None,
    serial: bool = False,
    cost_table: Path | None = None,
    model: str | None = None,
    duration_s: float | None = None,
    seed: int | None = None,
) -> Scenario:
    """A scenario with some values changed; None, nothing and False leave them.

    Args:
        scenario: The one to change.
        live_rate, overload, deadline_ms, lengths, rows: As in `LiveTraffic`; they make live calls where there
            are none.
        arrivals: ``poisson``, ``mmpp`` or the path of a recorded trace.
        tenants: ``NAME[:SHARE[:WEIGHT]]`` each.
        has_bulk: Adds a job where there is none.
        cores, serial: As in `Machine`.
        cost_table, model, duration_s, seed: As in `Scenario`.

    Raises:
        InvalidRequest: A value is wrong, or two contradict each other.
    """
    values: dict[str, object] = {
        "rate": live_rate,
        "overload": overload,
        "deadline_ms": deadline_ms,
        "lengths": lengths,
        "rows": rows,
        "tenants": tuple(_tenant(text) for text in tenants) or None,
        **_arrivals(arrivals),
    }
    live, bulk = _replaced(scenario.live or LiveTraffic(), values), scenario.bulk
    if live_rate is not None and overload is None:
        live = _replaced(live, {"arrivals": live.arrivals}, overload=None)
    if has_bulk and not bulk.jobs:
        bulk = _replaced(bulk, {"jobs": (BulkJob(lengths=lengths or "mixed"),)})
    is_live = scenario.live is not None or any(value is not None for value in values.values())
    machine = _replaced(scenario.machine, {"cores": cores, "kind": "serial" if serial else None})
    general = {"cost_table": cost_table, "model": model, "duration_s": duration_s, "seed": seed}
    found = _replaced(scenario, general, live=live if is_live else None, bulk=bulk, machine=machine)
    check_scenario(found)
    return found


_Changed = TypeVar("_Changed", bound=msgspec.Struct)


def _replaced(section: _Changed, values: Mapping[str, object], **always: object) -> _Changed:
    given = {name: value for name, value in values.items() if value is not None}
    return msgspec.structs.replace(section, **given, **always)


def _arrivals(given: str | None) -> dict[str, object]:
    if given is None or given in ("poisson", "mmpp"):
        return {"arrivals": given}
    return {"arrivals": "trace", "trace": Path(given)}


def _tenant(text: str) -> TenantMix:
    name, _, rest = text.partition(":")
    share, _, weight = rest.partition(":")
    try:
        return TenantMix(name=name, share=float(share or 1), weight=float(weight or 1))
    except ValueError as err:
        raise InvalidRequest(f"Tenant {text!r} must be NAME[:SHARE[:WEIGHT]], with two numbers.") from err
