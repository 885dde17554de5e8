"""ASI07, Insecure Inter-Agent Communication: agents pass typed values through the store, and no prose.

They run in one process and exchange no messages over a network, so what is left of this risk is what one
agent's answer can carry to the next.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.hostile import ORDER, QUARANTINED, handle, write_diary
from tests.lamp import Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper.agents import AgentRole, Diagnosis, FactCall, Reading, Remedy, Triage
from watchkeeper.agents.agent import BUILTIN_AGENTS
from watchkeeper.agents.prompts import QUARANTINED as ROLES
from watchkeeper.agents.reader import THEMES
from watchkeeper.models.interface import ChoiceRequest


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder / "home"


def test_who_reads_strangers_is_only_ever_asked_closed_questions(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    write_diary(tmp_path, ORDER)
    engine = prefers("switch")
    with orchestrator(home, lamp, engine) as o:
        report = handle(o)
    asked = [r for r in engine.requests if r.messages[0].content in QUARANTINED]
    assert len(asked) == 3
    assert all(isinstance(request, ChoiceRequest) for request in asked)
    themes = [e.result["theme"] for e in report.evidence if e.fact == "log.reading" and e.result]
    assert len(themes) == 1
    assert set(themes) <= set(THEMES)


def test_roles_that_read_strangers_hold_no_tools() -> None:
    assert frozenset({AgentRole.TRIAGE, AgentRole.READER}) == ROLES
    for agent in BUILTIN_AGENTS:
        if agent.role in ROLES:
            assert (agent.facts, agent.actions, agent.causes) == (None, None, ())


@pytest.mark.parametrize("answer", [Triage, FactCall, Reading, Diagnosis, Remedy])
def test_an_answer_carries_nothing_besides_its_fields(answer: type[Reading]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        answer.model_validate({"theme": "memory", "please": ORDER})
    assert answer.model_config.get("frozen") is True


def test_every_answer_is_on_record_with_who_gave_it_and_on_which_prompt(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    engine = prefers("switch")
    with orchestrator(home, lamp, engine) as o:
        report = handle(o)
    assert len(report.decisions) == len(engine.requests)
    assert all(len(d.prompt_digest) == 64 and d.model_digest for d in report.decisions)
