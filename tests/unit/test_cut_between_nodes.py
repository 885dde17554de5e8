"""What is cut off between a node's result and the state after it goes on, and not only within a node."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.lamp import ALERT, ALLOW, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper.runtime.errors import StoreError


@pytest.mark.parametrize("number", [2, 4, 7, 11, 14])
def test_an_incident_goes_on_after_a_result_that_no_state_holds_yet(tmp_path: Path, number: int) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    with folder_in_memory() as folder:
        with orchestrator(folder / "home", lamp, prefers("switch"), rules=ALLOW) as o:
            incident = o.open(ALERT).id
            original, calls = o._checkpoints.put, 0

            def put(*arguments: Any, **named: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls >= number:
                    raise sqlite3.OperationalError("the power went")
                return original(*arguments, **named)

            o._checkpoints.put = put  # type: ignore[method-assign]
            with pytest.raises((StoreError, sqlite3.Error)):
                list(o.resume(incident))
        with orchestrator(folder / "home", lamp, prefers("switch"), rules=ALLOW) as o:
            list(o.resume(incident))
            assert o.report(incident).outcome == "resolved"
    assert all(count == 1 for who, count in lamp.changes().items() if who != "somebody")
