from __future__ import annotations

import asyncio
import random

import pytest

from penstock_server.runtime.turns import Turns


class Party:
    """Tasks that take turns and go when they are told."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.inside: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._leave: dict[str, asyncio.Event] = {}

    async def come(self, *names: str) -> None:
        """Names begin with their tenant, such as a1."""
        for name in names:
            self._leave[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._take_turn(name))
            await tick()

    async def go(self, *names: str) -> None:
        for name in names:
            self._leave[name].set()
            await tick()

    async def give_up(self, *names: str) -> None:
        for name in names:
            self.tasks[name].cancel()
        await tick()

    async def _take_turn(self, name: str) -> None:
        async with self._turns.turn(name[0]):
            self.inside.append(name)
            try:
                await self._leave[name].wait()
            finally:
                self.inside.remove(name)


async def tick() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_tenant_of_many_does_not_keep_another_waiting() -> None:
    party = Party(Turns(2))
    await party.come("a1", "a2", "a3", "a4", "b1")
    assert party.inside == ["a1", "a2"]
    await party.go("a1")
    assert party.inside == ["a2", "b1"]
    await party.go("a2")
    assert party.inside == ["b1", "a3"]


async def test_tenants_that_hold_as_many_go_in_the_order_in_which_they_came_or_were_served() -> None:
    party = Party(Turns(1))
    await party.come("a1", "a2", "a3", "b1", "b2", "c1")
    order: list[str] = []
    while party.inside:
        order += party.inside
        await party.go(party.inside[0])
    assert order == ["a1", "a2", "b1", "c1", "a3", "b2"]


async def test_a_place_is_wanted_while_a_tenant_with_fewer_waits() -> None:
    turns = Turns(2)
    party = Party(turns)
    await party.come("a1", "a2", "a3")
    assert not turns.is_wanted("a")
    await party.come("b1")
    assert turns.is_wanted("a")
    await party.go("a1")
    assert party.inside == ["a2", "b1"]
    assert not turns.is_wanted("a")
    assert not turns.is_wanted("b")


async def test_room_is_kept_for_the_next_tenant() -> None:
    party = Party(Turns(8, keeps_room=True))
    await party.come(*(f"a{number}" for number in range(9)))
    assert len(party.inside) == 4
    await party.come("b1", "c1")
    assert party.inside[4:] == ["b1", "c1"]
    await party.go("a0")
    assert "a4" not in party.inside


async def test_who_gives_up_waiting_holds_nothing() -> None:
    turns = Turns(1)
    party = Party(turns)
    await party.come("a1", "b1", "c1")
    await party.give_up("b1")
    await party.go("a1")
    assert party.inside == ["c1"]
    await party.go("c1")
    await party.come("d1")
    assert party.inside == ["d1"]
    assert not turns.is_wanted("d")


@pytest.mark.parametrize("holder_goes_first", [True, False])
async def test_a_place_that_is_given_to_one_who_gives_up_goes_on(holder_goes_first: bool) -> None:
    party = Party(Turns(1))
    await party.come("a1", "b1", "c1")
    # Both in one round of the event loop, so that neither has heard of the other.
    for name in ("a1", "b1") if holder_goes_first else ("b1", "a1"):
        party.tasks[name].cancel()
    await tick()
    assert party.inside == ["c1"]


@pytest.mark.parametrize("keeps_room", [False, True])
@pytest.mark.parametrize("seed", range(20))
async def test_no_place_is_lost_or_given_twice(seed: int, keeps_room: bool) -> None:
    rng = random.Random(seed)
    party = Party(Turns(3, keeps_room=keeps_room))
    for number in range(200):
        await party.come(f"{rng.choice('abcd')}{number}")
        for name in list(party.tasks):
            chance = rng.random()
            if chance < 0.1:
                await party.give_up(name)
            elif chance < 0.3 and name in party.inside:
                await party.go(name)
            if party.tasks[name].done():
                del party.tasks[name]
        assert len(party.inside) <= 3
    while party.tasks:
        assert party.inside
        await party.go(*list(party.inside))
        party.tasks = {name: task for name, task in party.tasks.items() if not task.done()}
