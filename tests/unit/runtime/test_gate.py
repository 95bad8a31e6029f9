from __future__ import annotations

import asyncio

from penstock_server.runtime.gate import Gate


class Passer:
    """Passes a gate and stays inside until told to go."""

    def __init__(self, gate: Gate, *, alone: bool) -> None:
        self.is_inside = False
        self.go = asyncio.Event()
        self.task = asyncio.create_task(self._pass(gate, alone))

    async def _pass(self, gate: Gate, alone: bool) -> None:
        async with gate.passing(alone=alone):
            self.is_inside = True
            await self.go.wait()
        self.is_inside = False


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_many_pass_together() -> None:
    gate = Gate()
    passers = [Passer(gate, alone=False) for _ in range(3)]
    await settle()
    assert all(passer.is_inside for passer in passers)
    for passer in passers:
        passer.go.set()
        await passer.task


async def test_one_alone_waits_for_those_inside_and_goes_before_those_who_come_later() -> None:
    gate = Gate()
    inside, suspect = Passer(gate, alone=False), Passer(gate, alone=True)
    await settle()
    later = Passer(gate, alone=False)
    await settle()
    assert (inside.is_inside, suspect.is_inside, later.is_inside) == (True, False, False)
    inside.go.set()
    await settle()
    assert (suspect.is_inside, later.is_inside) == (True, False)
    suspect.go.set()
    await settle()
    assert later.is_inside
    later.go.set()
    await later.task


async def test_two_suspects_are_never_inside_together() -> None:
    gate = Gate()
    first, second = Passer(gate, alone=True), Passer(gate, alone=True)
    await settle()
    assert [first.is_inside, second.is_inside] == [True, False]
    first.go.set()
    await settle()
    assert second.is_inside
    second.go.set()
    await second.task


async def test_suspect_that_gives_up_waiting_lets_others_pass() -> None:
    gate = Gate()
    inside, suspect = Passer(gate, alone=False), Passer(gate, alone=True)
    await settle()
    suspect.task.cancel()
    await settle()
    later = Passer(gate, alone=False)
    await settle()
    assert later.is_inside
    for passer in (inside, later):
        passer.go.set()
        await passer.task
