"""Tables and JSON of an agreement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.agreement.figures import COMPARED, Figures, agrees, quotients

_WIDTH = 150
_PARTS = (
    *("queue_p50_ms", "queue_p99_ms", "compute_p50_ms", "compute_p99_ms"),
    *("rest_p50_ms", "rest_p99_ms", "batch_rows"),
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """One condition; medians over rounds.

    Attributes:
        served: By the server's own clock.
        simulated: On the same arrivals, with the simulator's defaults.
        adjusted: Likewise, with the machine as fast as it was in each stretch.
        client_p50_ms, client_p99_ms: From the time a call was due to its answer at the client.
        over_table: What batches of live calls took, over the learnt table: median and 90th percentile.
        gap_ms, rest_ms: The fixed costs of ``adjusted``: before a batch on an idle lane, and after a batch.
        others, client: Most cores that something else, and the client, used meanwhile.
    """

    served: Figures
    simulated: Figures
    adjusted: Figures
    client_p50_ms: float
    client_p99_ms: float
    over_table: tuple[float, float]
    gap_ms: float
    rest_ms: float
    others: float
    client: float

    @property
    def quotients(self) -> dict[str, float]:
        """Simulator over server."""
        return quotients(self.simulated, self.served)

    @property
    def adjusted_quotients(self) -> dict[str, float]:
        """Simulator over server, on a machine as fast as it was."""
        return quotients(self.adjusted, self.served)

    @property
    def holds(self) -> bool:
        """Whether everything that is compared agrees, on a machine as fast as it was."""
        return all(agrees(self.adjusted_quotients[name]) for name in COMPARED)


def as_json(agreements: Mapping[str, Agreement]) -> list[dict[str, Any]]:
    """All figures; what there is none of is null."""
    return [
        {
            "condition": name,
            "agrees": each.holds,
            "server": _known(asdict(each.served)),
            "simulator": _known(asdict(each.simulated)),
            "quotient": _known(each.quotients),
            "adjusted": _known(asdict(each.adjusted)),
            "adjusted_quotient": _known(each.adjusted_quotients),
            "fixed_costs": {"gap_ms": round(each.gap_ms, 3), "rest_ms": round(each.rest_ms, 3)},
            "at_client": {"p50_ms": each.client_p50_ms, "p99_ms": each.client_p99_ms},
            "over_table": {"p50": each.over_table[0], "p90": each.over_table[1]},
            "cores": {"others": each.others, "client": each.client},
        }
        for name, each in agreements.items()
    ]


def print_agreements(agreements: Mapping[str, Agreement]) -> None:
    """Prints what must agree, and then the parts that tell why it does not."""
    console = Console(width=_WIDTH)
    console.print(_table("Simulator / server: what must agree", COMPARED, agreements, told=True))
    console.print(_table("Where live latency goes", _PARTS, agreements, told=False))


def _table(title: str, names: tuple[str, ...], agreements: Mapping[str, Agreement], *, told: bool) -> Table:
    extra = ("client p50 / p99", "others + client", "") if told else ("batch / table p50, p90",)
    table = Table("condition", "", *names, *extra, title=title, box=None, pad_edge=False)
    for condition, each in agreements.items():
        client = f"{each.client_p50_ms:.1f} / {each.client_p99_ms:.1f}"
        verdict = "agrees" if each.holds else "DIFFERS"
        over_table = f"{each.over_table[0]:.2f}, {each.over_table[1]:.2f}"
        ends = (client, f"{each.others:.2f} + {each.client:.2f}", verdict) if told else (over_table,)
        table.add_row(condition, "server", *_cells(asdict(each.served), names), *ends)
        table.add_row("", "simulator", *_cells(asdict(each.simulated), names))
        table.add_row("", "quotient", *_cells(each.quotients, names))
        table.add_row("", "at its speed", *_cells(asdict(each.adjusted), names))
        table.add_row("", "quotient", *_cells(each.adjusted_quotients, names))
    return table


def _cells(values: Mapping[str, float], names: tuple[str, ...]) -> list[str]:
    return ["–" if math.isnan(values[name]) else f"{values[name]:,.2f}" for name in names]


def _known(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else round(value, 4) for name, value in values.items()}
