"""Checkpoints do what LangGraph asks of a checkpointer, behind the store's fence."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.serde.types import INTERRUPT

from watchkeeper.runtime.checkpoints import KEPT, Checkpoints
from watchkeeper.runtime.errors import FencedError
from watchkeeper.runtime.leases import Leases
from watchkeeper.runtime.store import Store


@pytest.fixture
def place(tmp_path: Path) -> Path | str:
    return tmp_path / "w.db"


def put(saver: Checkpoints, number: int, parent: str | None = None) -> str:
    configurable: dict[str, Any] = {"thread_id": "INC-1", "checkpoint_ns": ""}
    if parent is not None:
        configurable["checkpoint_id"] = parent
    checkpoint = {**empty_checkpoint(), "id": f"{number:04}", "channel_values": {"n": number}}
    saver.put({"configurable": configurable}, checkpoint, {"step": number}, {})  # type: ignore[typeddict-item]
    saver.put_writes(
        {"configurable": {**configurable, "checkpoint_id": f"{number:04}"}}, [("n", number)], "task"
    )
    return f"{number:04}"


@pytest.mark.parametrize("deferred", [False, True])
def test_langgraphs_conformance_kit_passes(place: Path | str, *, deferred: bool) -> None:
    with Store(place) as store:

        @checkpointer_test(name="Checkpoints")
        async def saver() -> AsyncGenerator[Checkpoints, None]:
            yield Checkpoints(store, kept=None, deferred=deferred)

        report = asyncio.run(validate(saver))
    failures = [failure for result in report.results.values() for failure in result.failures or ()]
    assert failures == []
    passed = {name for name, result in report.results.items() if result.passed}
    assert {"put", "put_writes", "get_tuple", "list", "delete_thread"} <= passed


def test_only_the_last_few_checkpoints_of_a_thread_are_kept(place: Path | str) -> None:
    with Store(place) as store:
        saver = Checkpoints(store)
        parent = None
        for number in range(10):
            parent = put(saver, number, parent)
        kept = list(saver.list({"configurable": {"thread_id": "INC-1"}}))
        # Older ones went with the eighth.
        values = [found.checkpoint["channel_values"] for found in kept]
        assert values == [{"n": 9}, *({"n": 8 - n} for n in range(KEPT))]
        assert kept[0].pending_writes == [("task", "n", 9)]
        with store.reading() as connection:
            found = connection.exec_driver_sql("SELECT count(*) FROM checkpoint_writes").scalar_one()
        assert found == len(kept)
        saver.delete_thread("INC-1")
        assert saver.get_tuple({"configurable": {"thread_id": "INC-1"}}) is None


def test_deferred_writes_are_kept_with_an_interrupt_and_gone_with_the_next_checkpoint(
    place: Path | str,
) -> None:
    config: Any = {"configurable": {"thread_id": "INC-1", "checkpoint_ns": ""}}
    with Store(place) as store:
        saver = Checkpoints(store, deferred=True)
        first = put(saver, 1)
        here: Any = {"configurable": {**config["configurable"], "checkpoint_id": first}}

        def kept() -> list[tuple[str, str, Any]]:
            other = Checkpoints(store).get_tuple(config)
            assert other is not None
            return list(other.pending_writes or ())

        mine = saver.get_tuple(config)
        assert mine is not None
        assert mine.pending_writes == [("task", "n", 1)]
        assert kept() == []
        saver.put_writes(here, [(INTERRUPT, "a question")], "other")
        assert sorted(kept()) == [("other", INTERRUPT, "a question"), ("task", "n", 1)]
        again = saver.get_tuple(config)
        assert again is not None
        assert sorted(again.pending_writes or ()) == sorted(kept())
        put(saver, 2, first)
        put(saver, 3, "0002")
        last = saver.get_tuple(config)
        assert last is not None
        assert last.pending_writes == [("task", "n", 3)]


def test_who_lost_an_incident_writes_no_checkpoint_of_it(place: Path | str) -> None:
    with Store(place) as store:
        saver, leases = Checkpoints(store), Leases(store)
        mine = leases.acquire("incident:INC-1", "one", seconds=60)
        assert mine is not None
        with store.fenced(mine):
            put(saver, 1)
            assert leases.acquire("incident:INC-1", "another", seconds=60, force=True) is not None
            with pytest.raises(FencedError):
                put(saver, 2)
        found = saver.get_tuple({"configurable": {"thread_id": "INC-1"}})
        assert found is not None
        assert found.checkpoint["id"] == "0001"
