"""Arrivals, lengths, traces, cost tables and scenarios."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.tasks import OverloadPolicy, RequestClass
from penstock_server.runtime.cost_store import CostKey, CostStore
from penstock_server.scheduling.cost import CostTable
from penstock_server.simulation.arrivals import live_calls, mmpp_times, poisson_times, stream
from penstock_server.simulation.cost_files import lane_costs
from penstock_server.simulation.lengths import known_lengths
from penstock_server.simulation.runner import prepare, run_policy
from penstock_server.simulation.scenario import NS_PER_S, LiveTraffic, Scenario, TenantMix
from penstock_server.simulation.settings import changed, load_scenario
from penstock_server.simulation.traces import read_trace
from tests.support.simulation import straight_costs, write_cost_table

HOUR_NS = 3600 * NS_PER_S


def test_poisson_arrivals_have_the_rate_and_the_spread_asked_for() -> None:
    times = poisson_times(10.0, HOUR_NS, stream(1, "test"))
    gaps = np.diff(times) / NS_PER_S
    # 36,000 arrivals: five standard errors of the mean are 2.6 %.
    assert len(times) == pytest.approx(36_000, rel=0.026)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)
    assert (gaps >= 0).all()
    assert times[-1] < HOUR_NS


def test_bursts_keep_the_mean_rate_and_spread_more_than_poisson() -> None:
    live = LiveTraffic(burst_ratio=10.0, calm_s=2.0, busy_s=0.4)
    times = mmpp_times(live, 10.0, 4 * HOUR_NS, stream(1, "test"))
    counts = np.bincount((times // NS_PER_S).astype(int))
    assert len(times) == pytest.approx(4 * 36_000, rel=0.05)
    assert counts.var() > 2 * counts.mean()


def test_same_seed_same_calls_and_another_seed_others() -> None:
    live = LiveTraffic(tenants=(TenantMix(name="a"), TenantMix(name="b", share=3.0)))
    first, again, other = (live_calls(live, 50.0, 20 * NS_PER_S, seed) for seed in (1, 1, 2))
    assert [(c.arrival_ns, c.tenant, c.lengths.tolist()) for c in first] == [
        (c.arrival_ns, c.tenant, c.lengths.tolist()) for c in again
    ]
    assert [c.arrival_ns for c in first] != [c.arrival_ns for c in other]


def test_one_use_of_randomness_more_changes_no_other() -> None:
    plain = live_calls(LiveTraffic(), 50.0, 20 * NS_PER_S, 1)
    cancelling = live_calls(LiveTraffic(cancel_share=0.5, critical_share=0.2), 50.0, 20 * NS_PER_S, 1)
    assert [c.arrival_ns for c in plain] == [c.arrival_ns for c in cancelling]
    assert [c.lengths.tolist() for c in plain] == [c.lengths.tolist() for c in cancelling]


def test_calls_are_divided_as_asked() -> None:
    live = LiveTraffic(
        critical_share=0.2,
        flex_share=0.3,
        cancel_share=0.1,
        tenants=(TenantMix(name="a", weight=2.0), TenantMix(name="b", share=3.0)),
    )
    calls = live_calls(live, 100.0, 100 * NS_PER_S, 1)
    part = {kind: sum(c.request_class is kind for c in calls) / len(calls) for kind in RequestClass}
    assert part[RequestClass.LIVE_CRITICAL] == pytest.approx(0.2, abs=0.02)
    assert part[RequestClass.FLEX] == pytest.approx(0.3, abs=0.02)
    assert sum(c.tenant == "b" for c in calls) / len(calls) == pytest.approx(0.75, abs=0.02)
    assert {c.weight for c in calls if c.tenant == "a"} == {2.0}
    leaving = [c for c in calls if c.cancel_ns is not None]
    assert len(leaving) / len(calls) == pytest.approx(0.1, abs=0.02)
    assert all(c.arrival_ns <= (c.cancel_ns or 0) <= (c.deadline_ns or 0) for c in leaving)


def test_lengths_come_from_a_file_or_by_name(tmp_path: Path) -> None:
    path = tmp_path / "lengths.txt"
    path.write_text("30\n5\n12\n")
    assert known_lengths(str(path)).tolist() == [5, 12, 30]
    # Real sentences are skewed: the mean is above the median.
    sentences = known_lengths("sentences")
    assert np.median(sentences) < sentences.mean() < 40


@pytest.mark.parametrize("content", ["", "12\nx\n", "0\n", "-3\n", "99999999\n"])
def test_wrong_file_of_lengths_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lengths.txt"
    path.write_text(content)
    with pytest.raises(InvalidRequest, match=r"lengths\.txt"):
        known_lengths(str(path))


def test_unknown_lengths_name_those_there_are() -> None:
    with pytest.raises(InvalidRequest, match="sentences"):
        known_lengths("haiku")


def test_trace_in_json_lines_and_parquet_is_the_same(tmp_path: Path) -> None:
    records = [
        {"arrival_ns": 10, "class": "LIVE", "tokens": [5, 6], "tenant": "t1", "deadline_ns": 99},
        {"arrival_ns": 0, "class": "FLEX", "tokens": [7], "overload": "demote_to_bulk"},
        {"arrival_ns": 20, "class": "BULK", "tokens": [1, 2, 3], "flow": "j1"},
    ]
    lines, columns = tmp_path / "trace.jsonl", tmp_path / "trace.parquet"
    lines.write_text("".join(json.dumps(record) + "\n" for record in records))
    names = ("arrival_ns", "class", "tokens", "tenant", "deadline_ns", "overload", "flow")
    columns_of = {name: [record.get(name) for record in records] for name in names}
    table = pa.table(columns_of)  # pyright: ignore[reportUnknownMemberType]
    pq.write_table(table, columns)  # pyright: ignore[reportUnknownMemberType]
    for path in (lines, columns):
        trace = read_trace(path, [TenantMix(name="t1", weight=4.0)])
        assert [call.arrival_ns for call in trace.calls] == [0, 10]
        assert trace.calls[0].overload is OverloadPolicy.DEMOTE_TO_BULK
        assert (trace.calls[1].weight, trace.calls[1].deadline_ns) == (4.0, 99)
        assert [call.lengths.tolist() for call in trace.windows["j1"]] == [[1, 2, 3]]
        assert trace.duration_ns == 21


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2"),
        ('{"arrival_ns": 1, "class": "URGENT", "tokens": [1]}', "URGENT"),
        ('{"arrival_ns": 1, "class": "LIVE", "tokens": []}', "tokens"),
        ('{"arrival_ns": 1, "class": "LIVE", "tokens": [0]}', "tokens"),
        ('{"arrival_ns": -1, "class": "LIVE", "tokens": [1]}', "arrival_ns"),
        ('{"arrival_ns": 1, "tokens": [1]}', "class"),
    ],
)
def test_wrong_record_of_a_trace_is_told(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"arrival_ns": 0, "class": "LIVE", "tokens": [1]}\n' + line + "\n")
    with pytest.raises(InvalidRequest, match=told):
        read_trace(path)


def test_empty_and_missing_traces_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "broken.parquet").write_text("no parquet")
    for name, told in (("empty.jsonl", "empty"), ("missing.jsonl", "No such"), ("broken.parquet", "Parquet")):
        with pytest.raises(InvalidRequest, match=told):
            read_trace(tmp_path / name)


def test_replayed_trace_submits_the_calls_at_their_times(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    records = [{"arrival_ns": 7_000_000 * index, "class": "LIVE", "tokens": [9]} for index in range(5)]
    records.append({"arrival_ns": 3_000_000, "class": "BULK", "tokens": [8] * 50, "flow": "j1"})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    setting = prepare(Scenario(live=LiveTraffic(arrivals="trace", trace=path)))
    run = run_policy("ours", setting)
    assert setting.duration_ns == 28_000_001
    assert sorted(work.submitted_ns for work in run.record.works) == [
        0, 3_000_000, 7_000_000, 14_000_000, 21_000_000, 28_000_000,
    ]  # fmt: skip
    assert {work.call.flow for work in run.record.works if not work.is_live} == {"j1"}


def test_cost_table_is_read_from_a_file(tmp_path: Path) -> None:
    path = write_cost_table(tmp_path / "costs.json", straight_costs())
    assert lane_costs(path).live.duration_ns(3, 10) == straight_costs().live.duration_ns(3, 10) == 15.5e6


def test_costs_that_a_server_has_stored_are_found_by_model(tmp_path: Path) -> None:
    store, shape = CostStore(tmp_path), (8, 64)
    for name, factor in (("other@1", 2.0), ("mine@1", 1.0)):
        for lane in LaneKind:
            table = CostTable(lane, 512)
            table.seed({shape: [factor * 1e7] * 5})
            key = CostKey(model=name, graph="g", lane=lane.value, threads=1, cpu="c", engine="e")
            assert store.save(key, table.state())
    (tmp_path / "broken.json").write_text("{")
    assert lane_costs(tmp_path, "mine").live.duration_ns(*shape) == pytest.approx(1e7, rel=0.05)
    assert lane_costs(tmp_path, "other@1").bulk.duration_ns(*shape) == pytest.approx(2e7, rel=0.05)
    with pytest.raises(InvalidRequest, match="--model"):
        lane_costs(tmp_path, "third")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{}", "live"),
        ("x", "no cost table"),
        (
            '{"live": {"row_points": [1], "length_points": [1, 2], "median_ns": [[1, 2]]}, "bulk": null}',
            "bulk",
        ),
    ],
)
def test_wrong_cost_table_is_refused_by_name(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(content)
    with pytest.raises(InvalidRequest, match=told) as caught:
        lane_costs(path)
    assert "costs.json" in caught.value.message


def test_cost_table_of_the_wrong_shape_is_refused(tmp_path: Path) -> None:
    path = write_cost_table(tmp_path / "costs.json", straight_costs())
    fields = json.loads(path.read_text())
    for change in (
        {"row_points": [2, 1]},
        {"median_ns": [[1.0, 2.0]]},
        {"median_ns": [[0.0, 1.0], [1.0, 2.0]]},
    ):
        path.write_text(json.dumps({**fields, "live": {**fields["live"], **change}}))
        with pytest.raises(InvalidRequest):
            lane_costs(path)


def test_scenario_file_sets_what_it_names_and_paths_are_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(
        'seed = 7\ncost_table = "costs.json"\n[live]\nrate = 5.5\n[[live.tenants]]\nname = "a"\n'
        '[[bulk.jobs]]\nname = "j"\n[machine]\ncores = 4\n'
    )
    scenario = load_scenario(path)
    assert scenario.live is not None
    assert (scenario.seed, scenario.live.rate, scenario.machine.cores) == (7, 5.5, 4)
    assert scenario.cost_table == tmp_path / "costs.json"
    assert scenario.bulk.jobs[0].name == "j"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("sead = 1", "sead"),
        ("seed =", "Wrong scenario"),
        ("duration_s = 0\n[live]", "duration_s"),
        ("", "live calls or a bulk job"),
        ("[live]\nrate = -1", "rate"),
        ("[live]\narrivals = 'trace'", "trace"),
        ("[live]\ncritical_share = 0.7\nflex_share = 0.7", "together"),
        ("[live]\ntenants = []", "tenants"),
        ("[live]\n[machine]\ncores = 0", "counts"),
        ("[[bulk.jobs]]\nname = 'a'\n[[bulk.jobs]]\nname = 'a'", "names"),
        ("[live]\n[noise]\nsigma = -1", "negative"),
    ],
)
def test_wrong_scenario_is_refused_and_told(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(content)
    with pytest.raises(InvalidRequest, match=told):
        load_scenario(path)


def test_options_win_over_the_file() -> None:
    base = Scenario(live=LiveTraffic(rate=5.0, overload=1.4), seed=3)
    found = changed(base, live_rate=9.0, tenants=["a:2:3", "b"], has_bulk=True, arrivals="mmpp")
    assert found.live is not None
    assert (found.live.rate, found.live.overload, found.live.arrivals) == (9.0, None, "mmpp")
    assert found.live.tenants == (TenantMix(name="a", share=2.0, weight=3.0), TenantMix(name="b"))
    assert (len(found.bulk.jobs), found.seed) == (1, 3)


@pytest.mark.parametrize("tenant", ["a:x", "a:1:", "a:1:y", "a:-1"])
def test_wrong_tenant_is_refused(tenant: str) -> None:
    base = Scenario(live=LiveTraffic())
    if tenant == "a:1:":
        assert changed(base, tenants=[tenant]).live is not None
        return
    with pytest.raises(InvalidRequest, match="enant"):
        changed(base, tenants=[tenant])
