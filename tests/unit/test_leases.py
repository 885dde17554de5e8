"""A name has one holder at a time, and whoever lost it can write nothing more under it."""

from __future__ import annotations

import threading
import time as clock
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from tests.clocks import FakeClock
from watchkeeper.runtime.errors import FencedError
from watchkeeper.runtime.jobs import Jobs
from watchkeeper.runtime.leases import Lease, Leases, new_holder
from watchkeeper.runtime.store import Store

START_TIME = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def time() -> FakeClock:
    return FakeClock(START_TIME)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "w.db") as store:
        yield store


@pytest.fixture
def leases(store: Store, time: FakeClock) -> Leases:
    return Leases(store, now=time)


def taken(leases: Leases, holder: str = "a", *, force: bool = False) -> Lease:
    lease = leases.acquire("x", holder, seconds=10, force=force)
    assert lease is not None
    return lease


def test_a_name_has_one_holder_until_it_is_given_back(leases: Leases) -> None:
    lease = taken(leases)
    assert leases.acquire("x", "b") is None
    assert leases.acquire("x", "a") is None
    assert leases.holder("x") == "a"
    assert leases.acquire("y", "b") is not None
    assert leases.release(lease)
    assert leases.holder("x") is None
    assert taken(leases, "b").fence > lease.fence


def test_a_lease_of_a_clock_that_was_ahead_holds_nobody_up(leases: Leases, time: FakeClock) -> None:
    time.forward(seconds=40 * 86_400)
    ahead = taken(leases)
    time.forward(seconds=-40 * 86_400)
    assert taken(leases, "b").fence > ahead.fence
    assert leases.acquire("x", "c") is None


def test_a_term_that_would_look_like_one_is_refused(leases: Leases, store: Store) -> None:
    with pytest.raises(ValueError, match="a lease lasts 86400 s at most, not 86401"):
        leases.acquire("x", "a", seconds=86_401)
    with pytest.raises(ValueError, match="at most"):
        Jobs(store).claim("a", lease_seconds=86_401)


def test_a_silent_holder_loses_the_name(leases: Leases, time: FakeClock) -> None:
    old = taken(leases)
    time.forward(seconds=9)
    leases.renew(old)
    time.forward(seconds=9)
    assert leases.acquire("x", "b") is None
    time.forward(seconds=1)
    new = taken(leases, "b")
    with pytest.raises(FencedError, match="'x' was taken over from 'a'"):
        leases.renew(old)
    assert not leases.release(old)
    assert leases.holder("x") == "b"
    leases.renew(new)


def test_a_lease_that_ran_out_and_that_nobody_took_is_still_good(leases: Leases, time: FakeClock) -> None:
    lease = taken(leases)
    time.forward(seconds=100)
    leases.renew(lease)
    assert leases.acquire("x", "b") is None


def test_a_name_may_be_taken_from_a_holder_that_is_known_to_be_gone(leases: Leases) -> None:
    old = taken(leases)
    taken(leases, "b", force=True)
    with pytest.raises(FencedError):
        leases.renew(old)


def test_holders_have_names_of_their_own() -> None:
    assert len({new_holder() for _ in range(100)}) == 100


def test_who_lost_a_name_can_write_nothing_more_under_it(leases: Leases, store: Store) -> None:
    jobs = Jobs(store)
    old = taken(leases)
    with store.fenced(old):
        jobs.add("toy", {})
        with Store(store.place) as other:
            new = taken(Leases(other), "b", force=True)
            with other.fenced(new):
                Jobs(other).add("toy", {})
        with pytest.raises(FencedError):
            jobs.add("toy", {})
        assert len(jobs.list()) == 2
    jobs.add("toy", {})
    assert len(jobs.list()) == 3


class State(TypedDict, total=False):
    number: int


@pytest.mark.parametrize("lost", [False, True])
def test_the_fence_holds_in_the_threads_of_a_graph(leases: Leases, store: Store, lost: bool) -> None:
    threads: set[int] = set()
    jobs = Jobs(store)

    def write(state: State) -> State:
        threads.add(threading.get_ident())
        clock.sleep(0.05)
        jobs.add("toy", {"number": state["number"]})
        return {}

    graph = StateGraph(State)
    graph.add_node("write", write)
    graph.add_conditional_edges(START, lambda _: [Send("write", {"number": n}) for n in range(3)], ["write"])
    graph.add_edge("write", END)
    lease = taken(leases)
    if lost:
        taken(leases, "b", force=True)
    with store.fenced(lease):
        if lost:
            with pytest.raises(FencedError):
                graph.compile().invoke({})
        else:
            graph.compile().invoke({})
    assert threading.get_ident() not in threads
    assert len(threads) == 3
    assert len(jobs.list()) == (0 if lost else 3)


def test_a_kept_lease_is_renewed_and_given_back(store: Store) -> None:
    leases = Leases(store)
    lease = leases.acquire("x", "a", seconds=0.3)
    assert lease is not None
    with leases.kept(lease, lambda error: None):
        for _ in range(6):
            clock.sleep(0.1)
            assert leases.acquire("x", "b") is None
    assert leases.acquire("x", "b") is not None


def test_who_keeps_a_lease_is_told_that_it_was_lost(store: Store) -> None:
    leases = Leases(store)
    lease = leases.acquire("x", "a", seconds=0.3)
    assert lease is not None
    told = threading.Event()
    errors: list[FencedError] = []

    def lost(error: FencedError) -> None:
        errors.append(error)
        told.set()

    with leases.kept(lease, lost):
        assert leases.acquire("x", "b", force=True) is not None
        assert told.wait(5)
    assert "'x' was taken over from 'a'" in str(errors[0])
    assert leases.holder("x") == "b"
