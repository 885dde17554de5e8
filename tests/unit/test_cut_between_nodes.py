"""What is cut off between a node's result and the state after it goes on, and not only within a node."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.lamp import ALERT, ALLOW, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper.runtime.checkpoints import Checkpoints
from watchkeeper.runtime.errors import StoreError


def cut_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no checkpoint from this one on be written."""
    original, calls = Checkpoints.put, 0

    def put(saver: Checkpoints, *arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= number:
            raise sqlite3.OperationalError("the power went")
        return original(saver, *arguments, **named)

    monkeypatch.setattr(Checkpoints, "put", put)


@pytest.mark.parametrize("number", [2, 4, 7, 11, 14])
def test_an_incident_goes_on_after_a_result_that_no_state_holds_yet(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    with folder_in_memory() as folder:
        with orchestrator(folder / "home", lamp, prefers("switch"), rules=ALLOW) as o:
            incident = o.open(ALERT).id
            cut_at(number, monkeypatch)
            with pytest.raises((StoreError, sqlite3.Error)):
                list(o.resume(incident))
            monkeypatch.undo()
        with orchestrator(folder / "home", lamp, prefers("switch"), rules=ALLOW) as o:
            list(o.resume(incident))
            assert o.report(incident).outcome == "resolved"
    assert all(count == 1 for who, count in lamp.changes().items() if who != "somebody")


def test_a_run_goes_on_from_the_store_alone_and_not_from_what_an_earlier_run_left_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    with (
        folder_in_memory() as folder,
        orchestrator(folder / "home", lamp, prefers("switch"), rules=ALLOW) as o,
    ):
        incident = o.open(ALERT).id
        cut_at(4, monkeypatch)
        with pytest.raises((StoreError, sqlite3.Error)):
            list(o.resume(incident))
        monkeypatch.undo()
        another = Checkpoints(o.journal.store).get_tuple({"configurable": {"thread_id": incident}})
        found: list[Any] = []
        original = Checkpoints.get_tuple

        def get_tuple(saver: Checkpoints, config: Any) -> Any:
            found.append(original(saver, config))
            return found[-1]

        monkeypatch.setattr(Checkpoints, "get_tuple", get_tuple)
        list(o.resume(incident))
        assert another is not None
        assert found[0].pending_writes == another.pending_writes
        assert o.report(incident).outcome == "resolved"
