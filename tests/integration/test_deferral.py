"""A call demoted to BULK that cannot be computed while it lasts becomes a job; nothing of it is lost."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import pytest

from penstock import Client, JobState, RequestClass
from tests.support.server import ServerThread, running_server

# So that a call of a few rows is too large to be live.
QUEUES = {"live_tokens_max": 600, "live_request_tokens_max": 600}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[ServerThread]:
    with running_server(tmp_path_factory.mktemp("deferral") / "data", queues=QUEUES) as server:
        yield server


def texts_of(rows: int, words: int) -> list[str]:
    return [f"{row} " + "word " * words for row in range(rows)]


def test_a_demoted_call_that_is_computed_in_time_is_answered(server: ServerThread) -> None:
    with Client(server.address) as client:
        vectors = client.embed(
            texts_of(8, 100),
            model="minilm",
            request_class="live",
            on_overload="demote_to_bulk",
            explain=True,
        )
    assert len(vectors) == 8
    assert (vectors.info.served_class, vectors.info.job_id) == (RequestClass.BULK, "")
    assert vectors.info.explanation is not None
    assert vectors.info.explanation.demoted_from is RequestClass.LIVE


def test_a_demoted_call_that_outlasts_its_time_becomes_a_job(server: ServerThread) -> None:
    texts = texts_of(80, 240)
    with Client(server.address) as client:
        deferred = client.embed(
            texts,
            model="minilm",
            request_class="live",
            on_overload="demote_to_bulk",
            tenant="acme",
            dimensions=64,
            timeout_s=1.2,
        )
        assert len(deferred) == 0
        assert deferred.info.job_id
        assert deferred.info.served_class is RequestClass.BULK
        job = client.bulk.wait(deferred.info.job_id)
        assert (job.state, job.total, job.succeeded) == (JobState.SUCCEEDED, 80, 80)
        results = list(client.bulk.results(job.id))
        direct = client.embed(texts[:2], model="minilm", dimensions=64)
    assert [result.row for result in results] == list(range(80))
    vectors = np.array([result.embedding for result in results[:2]], np.float32)
    assert (vectors * direct.to_numpy()).sum(axis=1).min() > 0.999


def test_pairs_become_a_job_too(server: ServerThread) -> None:
    pairs = [(text, "second") for text in texts_of(80, 240)]
    with Client(server.address) as client:
        deferred = client.classify(
            pairs, model="injection", request_class="live", on_overload="demote_to_bulk", timeout_s=1.2
        )
        assert deferred.info.job_id
        client.bulk.cancel(deferred.info.job_id)
