"""ASI10, Rogue Agents: one that wants the worst gets no further than its rules, and leaves a trail."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import handle, without_approval
from tests.lamp import ALERT, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper import RandomEngine
from watchkeeper.models.interface import ChoiceRequest
from watchkeeper.models.scripted import ScriptedEngine
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.audit_anchor import ANCHORS, anchor, check_anchors
from watchkeeper.runtime.audit_keys import PUBLIC, create_keys
from watchkeeper.runtime.errors import AuditError, HaltedError


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder / "home"


def worst(request: ChoiceRequest) -> int:
    """Prefer what cannot be undone, and otherwise the last."""
    wanted = [i for i, text in enumerate(request.options) if "fuse" in text]
    return wanted[0] if wanted else len(request.options) - 1


@pytest.mark.parametrize("answer", ["approve", "reject"])
def test_an_agent_that_wants_the_worst_does_nothing_without_a_yes(
    tmp_path: Path, home: Path, answer: str
) -> None:
    lamp = Lamp.dark(tmp_path, switch="off", fuse="blown", bulb="old")
    with orchestrator(home, lamp, ScriptedEngine(choose=worst)) as o:
        report = handle(o, ALERT, answer)
        sound = o.journal.audit.verify()
    assert without_approval(report) == []
    assert (lamp.parts()["fuse"] == "blown") or answer == "approve"
    assert sound.ok
    assert sound.entries > 10


@pytest.mark.parametrize("seed", range(8))
def test_agents_that_act_at_random_do_nothing_without_a_yes(tmp_path: Path, home: Path, seed: int) -> None:
    lamp = Lamp.dark(tmp_path, switch="off", fuse="blown", bulb="old")
    before = lamp.log.read_text()
    with orchestrator(home, lamp, RandomEngine(seed)) as o:
        report = handle(o, ALERT, "reject")
    assert without_approval(report) == []
    assert lamp.log.read_text() == before


def test_a_word_of_a_person_stops_all_of_them(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    before = lamp.log.read_text()
    with orchestrator(home, lamp, prefers("switch")) as o:
        incident = o.open(ALERT)
        o.journal.halts.stop(by="bob", reason="odd")
        with pytest.raises(HaltedError):
            for _ in o.resume(incident.id):
                pass
    assert lamp.log.read_text() == before


# -- an account that holds the signing key, and what was anchored before -----------------------------------


def log_of(home: Path, *kinds: str) -> AuditLog:
    log = AuditLog(home)
    for kind in kinds:
        log.append(kind, {"what": kind})
    return log


def test_a_log_that_was_rewritten_with_its_own_key_does_not_fit_its_anchors(tmp_path: Path) -> None:
    log = log_of(tmp_path / "home", "asked", "decided", "done")
    kept = anchor(log, tmp_path / "elsewhere")
    assert (kept.count, kept.fresh) == (3, True)
    # Whoever runs agents can read the key: a whole new log, soundly signed.
    for path in log.folder.iterdir():
        path.unlink()
    forged = log_of(tmp_path / "home", "asked", "refused", "nothing", "more")
    assert forged.verify().ok
    (problem,) = check_anchors(forged, tmp_path / "elsewhere")
    assert (problem.file, problem.what) == (ANCHORS, "entry 3 of the log is not the one that was anchored")
    with pytest.raises(AuditError, match="is not anchored"):
        anchor(forged, tmp_path / "elsewhere")


def test_a_log_that_was_cut_or_signed_by_another_key_does_not_fit_either(tmp_path: Path) -> None:
    log = log_of(tmp_path / "home", "asked", "decided", "done")
    anchor(log, tmp_path / "elsewhere")
    for path in log.folder.iterdir():
        path.unlink()
    create_keys(log.keys)
    shorter = log_of(tmp_path / "home", "asked")
    assert shorter.verify().ok
    assert [(p.file, p.what) for p in check_anchors(shorter, tmp_path / "elsewhere")] == [
        (PUBLIC, "is not the key that was anchored"),
        (ANCHORS, "3 entries were anchored, the log ends with entry 1"),
    ]


def test_a_log_that_went_on_fits_its_anchors_and_is_anchored_again(tmp_path: Path) -> None:
    log = log_of(tmp_path / "home", "asked")
    anchor(log, tmp_path / "elsewhere")
    log.append("decided", {})
    assert check_anchors(log, tmp_path / "elsewhere") == ()
    again = anchor(log, tmp_path / "elsewhere")
    assert (again.count, again.checkpoints, again.fresh) == (2, 2, True)
    assert anchor(log, tmp_path / "elsewhere").fresh is False


def test_an_anchor_that_was_edited_is_told(tmp_path: Path) -> None:
    log = log_of(tmp_path / "home", "asked", "decided")
    anchor(log, tmp_path / "elsewhere")
    path = tmp_path / "elsewhere" / ANCHORS
    path.write_text(path.read_text().replace('"count":2', '"count":1'))
    (problem,) = check_anchors(log, tmp_path / "elsewhere")
    assert problem.what == "is not signed by the anchored key"
