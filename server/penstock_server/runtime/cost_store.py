"""Cost tables that outlive the process: one file for each model, lane and machine, in the data folder."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import msgspec
import structlog

from penstock_server.bulk.durable import replacing
from penstock_server.domain.decoding import decode_json
from penstock_server.domain.errors import StorageFailed, StorageFull
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelManifest
from penstock_server.scheduling.cost_learning import TableState

# Raised when the meaning of a file changes; files of other formats are ignored.
_FORMAT = 1
# How much of a graph's beginning and end goes into its digest: a millisecond, however large the file.
_DIGEST_PART_BYTES = 1 << 20
_CPUINFO = Path("/proc/cpuinfo")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CostKey:
    """All that a cost depends on, but for the shape of the batch.

    Attributes:
        model: Name and version, for people.
        graph: Digest of the graph's size, beginning and end. Costs depend on a graph's nodes and shapes and
            not on its weights, so no more has to be read.
        lane: Live or bulk.
        threads: Threads that compute.
        cpu: The processor.
        engine: Runtime and version.
    """

    model: str
    graph: str
    lane: str
    threads: int
    cpu: str
    engine: str

    @property
    def file_name(self) -> str:
        """Readable as far as it goes, and different for different keys."""
        digest = hashlib.sha256(msgspec.json.encode(asdict(self))).hexdigest()
        return f"{self.model}-{self.lane}-{digest[:12]}.json"


class _StoredTable(msgspec.Struct, frozen=True, kw_only=True):
    """The file."""

    format: int
    key: CostKey
    table: TableState


def cost_key(manifest: ModelManifest, lane: LaneKind, threads: int) -> CostKey:
    """Describes what a model costs on this machine; reads two mebibytes.

    Raises:
        OSError: The graph cannot be read.
    """
    return CostKey(
        model=str(manifest.key),
        graph=_digest(manifest.onnx_path),
        lane=lane.value,
        threads=threads,
        cpu=_processor(),
        engine=f"onnxruntime {metadata.version('onnxruntime')}",
    )


class CostStore:
    """Reads and writes tables. Blocking; safe to use from several threads for different keys.

    Args:
        folder: Made when the first table is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, key: CostKey) -> TableState | None:
        """Reads a table; None if there is none, or if it is broken or of another machine, which is logged."""
        path = self._folder / key.file_name
        try:
            stored = decode_json(path.read_bytes(), _StoredTable)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as err:
            _log.warning("cost_table_ignored", path=str(path), why=str(err))
            return None
        if stored.format != _FORMAT or stored.key != key:
            _log.warning("cost_table_ignored", path=str(path), why="of another format, model or machine")
            return None
        return stored.table

    def save(self, key: CostKey, table: TableState) -> bool:
        """Writes a table, whole or not at all; returns False, and logs, if the folder cannot take it."""
        path = self._folder / key.file_name
        content = msgspec.json.encode(_StoredTable(format=_FORMAT, key=key, table=table))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(content)
        except (OSError, StorageFull, StorageFailed) as err:
            _log.warning("cost_table_not_saved", path=str(path), why=str(err))
            return False
        return True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        hashed = hashlib.sha256(size.to_bytes(8, "little"))
        hashed.update(file.read(_DIGEST_PART_BYTES))
        file.seek(max(0, size - _DIGEST_PART_BYTES))
        hashed.update(file.read(_DIGEST_PART_BYTES))
    return hashed.hexdigest()[:32]


def _processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
