"""What a graph of one's own applies is done once, also where two of them reach for it."""

import threading
from pathlib import Path

import pytest

from tests.lamp import ALERT, ALLOW, Lamp, orchestrator, prefers
from watchkeeper.runtime.errors import IncidentBusyError
from watchkeeper.runtime.ledger import EffectState
from watchkeeper.tools.action import ActionPlan, Outcome
from watchkeeper.tools.define import DefinedAction
from watchkeeper.tools.host import Target


def test_a_step_that_is_being_applied_is_not_taken_for_one_that_a_crash_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    begun, go_on = threading.Event(), threading.Event()
    original = DefinedAction.apply

    def slow(self: DefinedAction, target: Target, plan: ActionPlan) -> Outcome:
        begun.set()
        assert go_on.wait(30)
        return original(self, target, plan)

    monkeypatch.setattr(DefinedAction, "apply", slow)
    home = tmp_path / "home"
    with orchestrator(home, lamp, prefers(), rules=ALLOW) as one, orchestrator(home, lamp, prefers()) as two:
        incident = one.open(ALERT).id
        step = one.changes.propose(
            incident, host="house", action="switch.set", arguments={"position": "on"}, key="mine"
        )
        one.changes.decide(step.id)
        states: list[EffectState] = []
        worker = threading.Thread(target=lambda: states.append(one.apply(step.id).state))
        worker.start()
        try:
            assert begun.wait(30)
            with pytest.raises(IncidentBusyError, match="is being run by process"):
                two.apply(step.id)
        finally:
            go_on.set()
            worker.join()
        assert states == [EffectState.DONE]
        assert lamp.changes()[step.id] == 1
        assert two.apply(step.id).state is EffectState.DONE
        assert lamp.changes()[step.id] == 1
