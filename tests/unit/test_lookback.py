"""Pruning lifts no limit: what one may still count stays, and goes when none looks back at it any more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.lamp import folder_in_memory
from tests.unit.test_limits import SWITCH, World
from watchkeeper.runtime.breaker import BreakerState
from watchkeeper.runtime.limits import BreakerLimits, Limits, RepeatLimits
from watchkeeper.runtime.retention import Pruned, prune_incidents

DAY = 86_400.0


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder / "home"


def prune(world: World) -> Pruned:
    """Prune all that ended."""
    journal, later = world.journal, world.clock.at + timedelta(seconds=1)
    return prune_incidents(
        journal.store,
        journal.audit,
        home=world.home,
        before=later,
        by="ann",
        limits=world.limits,
        now=world.clock,
    )


def test_what_a_rate_limit_counts_stays(home: Path) -> None:
    world = World(home, Limits(window_seconds=200 * DAY, actions_in_all=1))
    world.do()
    world.end()
    done = world.incident
    world.clock.forward(seconds=199 * DAY)
    assert prune(world).kept_for_limits == (done,)
    world.open()
    assert "1 actions in all" in world.changes.refusal(world.step().id)
    world.clock.forward(seconds=DAY)
    assert prune(world).incidents == (done,)


def test_what_the_blast_radius_of_any_policy_counts_stays(home: Path) -> None:
    world = World(home)
    world.do()
    world.end()
    world.clock.forward(seconds=89 * DAY)
    assert not prune(world).incidents
    assert [touch.host for touch in world.journal.ledger.touches(world.clock.at - timedelta(days=90))] == [
        "house"
    ]
    world.clock.forward(seconds=DAY)
    assert len(prune(world).incidents) == 1


def test_an_action_that_was_taken_back_late_counts_from_then_on(home: Path) -> None:
    world = World(home, Limits(breaker=BreakerLimits(within_seconds=300 * DAY)))
    step = world.step()
    assert world.changes.apply(step.id).ok
    world.clock.forward(seconds=200 * DAY)
    world.changes.rollback(step.id)
    world.end()
    world.clock.forward(seconds=200 * DAY)
    assert not prune(world).incidents
    world.clock.forward(seconds=101 * DAY)
    assert prune(world).incidents == (world.incident,)


def test_a_breaker_that_is_open_stays_open_however_old_its_failures_are(home: Path) -> None:
    world = World(home)
    for _ in range(3):
        world.do(helps=False)
    world.end()
    failed = world.incident
    world.clock.forward(seconds=400 * DAY)
    assert prune(world).kept_for_limits == (failed,)
    assert world.state() is BreakerState.HALF_OPEN
    world.breaker.reset(SWITCH, world.journal.audit, by="ann")
    assert prune(world).incidents == (failed,)
    assert world.state() is BreakerState.CLOSED


def test_what_comes_back_again_and_again_is_still_a_loop(home: Path) -> None:
    world = World(home, Limits(repeats=RepeatLimits(within_seconds=50 * DAY)))
    chain = []
    for _ in range(2):
        world.do()
        world.end()
        chain.append(world.incident)
        world.clock.forward(seconds=49 * DAY)
        world.open()
    world.clock.forward(seconds=100 * DAY)  # all is older than any span, and the third incident lives
    assert set(prune(world).kept_for_limits) == set(chain)
    assert "resolved this alert 2 times" in world.changes.refusal(world.step().id)
    world.end()
    chain.append(world.incident)
    assert set(prune(world).kept_for_limits) == set(chain), "a fourth may follow"
    world.clock.forward(seconds=51 * DAY)
    assert set(prune(world).incidents) == set(chain)


def test_an_action_that_did_not_take_place_keeps_nothing(home: Path) -> None:
    world = World(home)
    world.end()
    assert prune(world).incidents == (world.incident,)
