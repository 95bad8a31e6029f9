"""Where true durations come from: the table that comes with this package, or a file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from penstock_server.domain.errors import InvalidRequest
from penstock_server.simulation.builtin import LENGTH_POINTS, MINILM_BULK_MS, MINILM_LIVE_MS, ROW_POINTS
from penstock_server.simulation.costs import DurationTable, LaneCosts
from penstock_server.simulation.scenario import NS_PER_MS


class _FileTable(msgspec.Struct, frozen=True):
    row_points: list[int]
    length_points: list[int]
    median_ns: list[list[float]]


class _StoredKey(msgspec.Struct, frozen=True):
    model: str
    lane: str


class _StoredFile(msgspec.Struct, frozen=True):
    """What is read of a table that a server has stored."""

    key: _StoredKey
    table: _FileTable


class _File(msgspec.Struct, frozen=True):
    live: _FileTable
    bulk: _FileTable


def lane_costs(path: Path | None, model: str = "") -> LaneCosts:
    """Reads true durations.

    Args:
        path: A JSON file with ``live`` and ``bulk``, each with both axes and medians in nanoseconds; or the
            folder ``costs`` in a server's data folder; None for the table of MiniLM on two cores.
        model: Which model of a server's folder, as ``name`` or ``name@version``.

    Raises:
        InvalidRequest: It cannot be read, or is no such table.
    """
    if path is None:
        return LaneCosts(_builtin(MINILM_LIVE_MS), _builtin(MINILM_BULK_MS))
    if path.is_dir():
        return LaneCosts(_stored(path, model, "live"), _stored(path, model, "bulk"))
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as err:
        raise InvalidRequest(f"Cannot read the cost table {path}: {err.strerror}.") from err
    except msgspec.DecodeError as err:
        raise InvalidRequest(f"{path} is no cost table: {err}") from err
    return LaneCosts(_table_of(file.live, path), _table_of(file.bulk, path))


def _stored(folder: Path, model: str, lane: str) -> DurationTable:
    """The newest table of a model and a kind of lane that a server has stored."""
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            stored = msgspec.json.decode(path.read_bytes(), type=_StoredFile)
        except (OSError, msgspec.DecodeError):
            # Not one of ours, or half of one: the server ignores it as well.
            continue
        if stored.key.lane == lane and model in (stored.key.model, stored.key.model.partition("@")[0]):
            return _table_of(stored.table, path)
    raise InvalidRequest(
        f"{folder} holds no {lane} costs of the model {model!r}; give its name with --model and let a server "
        "run it, or give a JSON file."
    )


def _builtin(median_ms: tuple[tuple[float, ...], ...]) -> DurationTable:
    return DurationTable(
        np.array(ROW_POINTS, np.float64),
        np.array(LENGTH_POINTS, np.float64),
        np.array(median_ms, np.float64) * NS_PER_MS,
    )


def _table_of(table: _FileTable, path: Path) -> DurationTable:
    rows, lengths = np.array(table.row_points, np.float64), np.array(table.length_points, np.float64)
    if not all(len(points) > 1 and (np.diff(points) > 0).all() for points in (rows, lengths)):
        raise InvalidRequest(f"{path}: points must ascend, at least two of them on each axis.")
    try:
        median_ns = np.array(table.median_ns, np.float64)
    except ValueError as err:
        raise InvalidRequest(f"{path}: median_ns must be a list for each row point.") from err
    if median_ns.shape != (len(rows), len(lengths)) or not (median_ns > 0).all():
        raise InvalidRequest(
            f"{path}: median_ns must hold {len(rows)} lists of {len(lengths)} durations above 0."
        )
    return DurationTable(rows, lengths, median_ns)
