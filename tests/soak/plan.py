"""What a soak does: how long, how fast, with which clients. All of it is bounded here."""

from __future__ import annotations

from dataclasses import dataclass, replace

EMBEDDER, CLASSIFIER = "minilm", "injection"
# A client that still waits for an answer this long after its time is up has found a hang.
FINISH_TIMEOUT_S = 90.0
# What the server may take to drain, and what its process may take beyond that to end.
DRAIN_GRACE_S = 10.0
EXIT_MARGIN_S = 10.0
FLOOD_TENANT = "flood"


@dataclass(frozen=True, slots=True)
class Plan:
    """The bounds of the load; rates are calls a second of one client process.

    The rates keep two cores about half busy, so that bulk jobs have room and queues fill and empty. Jobs of
    clients that are killed run on; they are small, so that more are not left behind than can be computed.
    """

    seconds: float
    seed: int
    live_clients: int = 2
    live_rate: float = 6.0
    rows_max: int = 6
    streams_at_once: int = 3
    stream_texts_max: int = 60
    jobs_at_once: int = 2
    job_rows_max: int = 600
    mortal_job_rows_max: int = 80
    reading_stop_s: float = 4.0
    flood_rate: float = 120.0
    flood_s: float = 5.0
    flood_pause_s: float = 40.0
    mortal_life_s: tuple[float, float] = (4.0, 15.0)
    in_flight_max: int = 256
    texts: int = 160
    settle_s: float = 120.0

    def for_mortals(self) -> Plan:
        """The load of a client that will be killed."""
        return replace(self, job_rows_max=self.mortal_job_rows_max, jobs_at_once=1, streams_at_once=2)

    @classmethod
    def short(cls, seconds: float, seed: int) -> Plan:
        """The same gestures in less time, for the ordinary tests."""
        return cls(
            seconds=seconds,
            seed=seed,
            live_clients=1,
            live_rate=5.0,
            rows_max=3,
            stream_texts_max=16,
            job_rows_max=120,
            mortal_job_rows_max=40,
            reading_stop_s=1.5,
            flood_rate=60.0,
            flood_s=2.0,
            flood_pause_s=4.0,
            mortal_life_s=(3.0, 6.0),
            texts=48,
            settle_s=15.0,
        )
