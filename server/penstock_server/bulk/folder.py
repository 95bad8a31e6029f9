"""Where the files of a job are."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from penstock_server.bulk.durable import make_folder, storage_errors
from penstock_server.domain.job import FileFormat, RowSelection

_RESULT_NAMES = {
    RowSelection.ALL: "rows",
    RowSelection.SUCCEEDED: "results",
    RowSelection.FAILED: "errors",
}


class JobFolder:
    """The folder of one job: its spool, part files and result files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def spool_path(self) -> Path:
        """The materialised input."""
        return self.path / "spool.arrow"

    @property
    def sources_path(self) -> Path:
        """Which row is from which file, if the input is several."""
        return self.path / "sources.json"

    @property
    def delivery_path(self) -> Path:
        """Folder of result files while they are delivered elsewhere."""
        return self.path / "delivery"

    @property
    def fetched_path(self) -> Path:
        """The input while it is read, if it comes from elsewhere."""
        return self.path / "input"

    def part_name(self, window: int, replaced: str) -> str:
        """Name of a window's next part file; differs from that of the part it replaces."""
        attempt = int(replaced.split(".")[1]) + 1 if replaced else 0
        return f"part-{window:08d}.{attempt}.arrow"

    def part_path(self, file_name: str) -> Path:
        """Path of a part file."""
        return self.path / file_name

    def result_path(self, file_format: FileFormat, selection: RowSelection) -> Path:
        """Path of a result file, which may not be there yet."""
        return self.path / f"{_RESULT_NAMES[selection]}.{file_format.value}"

    def create(self) -> None:
        """Makes the folder, durably; no effect if it is there. Raises StorageFull or StorageFailed."""
        make_folder(self.path)

    def sweep(self, parts: Collection[str]) -> None:
        """Deletes part files that the journal does not name, and files that were never finished."""
        if not self.path.is_dir():
            return
        for path in self.path.iterdir():
            stray_part = path.name.startswith("part-") and path.name not in parts
            if stray_part or path.suffix == ".tmp":
                path.unlink()

    def delete(self) -> None:
        """Removes the folder with all it holds; no effect if it is not there. Raises StorageFailed."""
        if self.path.is_dir():
            with storage_errors():
                shutil.rmtree(self.path)
