"""Versions of predictors in MLflow's registry: kept once, checked, promoted and restored exactly."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clocks import START, FakeClock
from tests.predictor_homes import JOB, empty_home, home_with_two
from tests.threshold import EVALUATION, make
from watchkeeper.tools.errors import ArtefactError, MovedError, VersionError
from watchkeeper.tools.host import LocalHost, Target
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.versions import (
    MoveState,
    Notes,
    Versions,
    files,
    mlflow_store,
    moves,
    versions,
)
from watchkeeper.tools.versions.promotion import PredictorPromote, PromoteArguments, promotion_diff


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return Path(shutil.copytree(empty_home(), tmp_path / "home"))


@pytest.fixture
def kept(home: Path) -> Versions:
    return Versions(home, now=FakeClock())


@pytest.fixture
def two(home: Path) -> Versions:
    shutil.rmtree(home)
    shutil.copytree(home_with_two(), home)
    return Versions(home, now=FakeClock())


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    tried: list[object] = []

    def refuse(self: socket.socket, address: object) -> None:
        tried.append(address)
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tried


def test_a_version_keeps_its_files_and_its_whole_lineage(
    kept: Versions, tmp_path: Path, offline: list[object]
) -> None:
    notes = Notes(purpose="says who is busy", limits=("not for nights",))
    made = kept.register("busy", make(tmp_path / "a", 0.5), EVALUATION, JOB, notes)

    version = kept.get("busy", 1)
    assert version == made
    assert version.number == 1
    assert version.quality == 0.75
    record = version.record
    assert (record.job, record.evaluation, record.notes) == (JOB, EVALUATION, notes)
    assert record.manifest.data_sha256 == "d" * 64
    assert record.registered_at == START
    assert set(record.files) == {"predictor.json", "threshold.json"}
    assert json.loads((version.folder / "threshold.json").read_text()) == {"threshold": 0.5}
    assert offline == []


def test_lineage_is_in_mlflow_for_those_who_look_there(two: Versions, home: Path) -> None:
    store = mlflow_store.MlflowStore(home / "predictors" / "mlflow.db")
    (entry, _) = store.entries("busy")
    assert store.run_of(entry) == ({"threshold": "0.5"}, {"accuracy": 0.75, "recall": 0.5})
    assert entry.tags["watchkeeper.job"] == "JOB-1"
    assert entry.tags["watchkeeper.energy_joules"] == "812.5"
    assert json.loads(entry.tags["watchkeeper.hardware"]) == JOB.hardware
    assert json.loads(entry.tags["watchkeeper.libraries"]) == {"numpy": "2.0"}


def test_the_same_files_are_the_same_version(two: Versions, tmp_path: Path) -> None:
    again = two.register("busy", make(tmp_path / "c", 0.5), None, None)
    assert again == two.get("busy", 1)
    assert again.record.job == JOB
    assert [version.number for version in two.list("busy")] == [1, 2]


def test_a_version_is_found_by_number_alias_and_digest(two: Versions) -> None:
    second = two.get("busy", "2")
    two.promote("busy", 2, by="alice")
    assert two.get("busy", second.digest[:10]).number == 2
    assert two.get("busy").number == 2
    assert two.get("busy").aliases == ("champion",)
    with pytest.raises(VersionError, match=r"no version '9'; versions: 1, 2; aliases: champion \(2\)"):
        two.get("busy", 9)
    with pytest.raises(VersionError, match="no predictor 'lazy'; there are: busy"):
        two.get("lazy")


@pytest.mark.parametrize("name", ["", "Busy", "a b", "../up", "a" * 65, "it's"])
def test_what_is_no_name_is_refused(kept: Versions, tmp_path: Path, name: str) -> None:
    with pytest.raises(VersionError, match="no name of a predictor"):
        kept.register(name, make(tmp_path / "a", 0.5))


def test_a_folder_that_holds_no_predictor_is_refused(kept: Versions, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="holds no predictor"):
        kept.register("busy", tmp_path)
    assert kept.names() == ()


def test_a_link_among_the_files_is_refused(kept: Versions, tmp_path: Path) -> None:
    folder = make(tmp_path / "a", 0.5)
    (folder / "more").symlink_to("/etc/passwd")
    with pytest.raises(VersionError, match="neither a file nor a folder"):
        kept.register("busy", folder)


def _edit(folder: Path) -> None:
    (folder / "threshold.json").write_text('{"threshold": 0.9}')


def _remove(folder: Path) -> None:
    (folder / "threshold.json").unlink()


def _add(folder: Path) -> None:
    (folder / "more.json").write_text("{}")


@pytest.mark.parametrize("damage", [_edit, _remove, _add])
def test_files_that_are_not_as_they_were_kept_are_never_loaded(
    two: Versions, damage: Callable[[Path], None]
) -> None:
    damage(two.get("busy", 1).folder)
    with pytest.raises(VersionError, match=r"is missing|is not as it was kept"):
        two.open("busy", 1)
    with pytest.raises(VersionError, match=r"is missing|is not as it was kept"):
        two.promote("busy", 1, by="alice")
    assert two.open("busy", 2)[1].predict([{"load": 0.7}])[0]["busy"] is True


def test_a_record_that_was_edited_is_found(two: Versions) -> None:
    version = two.get("busy", 1)
    path = version.folder.with_name(f"{version.digest}.json")
    path.write_text(path.read_text().replace('"accuracy":0.75', '"accuracy":0.99'))
    with pytest.raises(VersionError, match=r"\.json' is not as it was kept"):
        two.get("busy", 1)


def test_a_promotion_says_what_was_and_is_restored_exactly(two: Versions) -> None:
    first = two.promote("busy", 1, by="alice", reason="the first")
    assert (first.before, first.after, first.state) == (None, 1, MoveState.DONE)
    second = two.promote("busy", 2, by="bob", reason="better")
    assert (second.before, second.after) == (1, 2)

    back = two.restore(second, by="carol")
    assert (back.before, back.after, back.undoes) == (2, 1, 2)
    assert two.restore(second, by="carol") == back
    assert two.get("busy").number == 1
    two.restore(first, by="carol")
    assert two.aliases("busy") == {}
    assert [move.by for move in two.history("busy")] == ["alice", "bob", "carol", "carol"]


def test_what_was_moved_since_is_not_restored(two: Versions) -> None:
    first = two.promote("busy", 1, by="alice")
    two.promote("busy", 2, by="bob")
    with pytest.raises(MovedError, match="was moved again since, to version 2 by 'bob'"):
        two.restore(first, by="alice")
    assert two.get("busy").number == 2


def test_a_version_that_was_promoted_again_since_is_not_taken_back_for_the_first_time(two: Versions) -> None:
    two.promote("busy", 1, by="alice")
    agent = two.promote("busy", 2, by="watchkeeper", key="step-1")
    two.restore(agent, by="bob")
    two.promote("busy", 2, by="bob", reason="it was right")
    with pytest.raises(MovedError, match="was moved again since, to version 2 by 'bob'"):
        two.restore(agent, by="watchkeeper")
    assert two.get("busy").number == 2


def test_what_was_taken_back_stays_so_whatever_was_promoted_since(two: Versions, tmp_path: Path) -> None:
    two.register("busy", make(tmp_path / "third", 0.7))
    two.promote("busy", 1, by="alice")
    agent = two.promote("busy", 2, by="watchkeeper", key="step-1")
    undone = two.restore(agent, by="watchkeeper")
    two.promote("busy", 3, by="bob")
    assert two.restore(agent, by="watchkeeper") == undone  # as after a crash that came before it was recorded
    assert two.get("busy").number == 3


def test_a_detour_that_was_taken_back_keeps_no_rollback(two: Versions) -> None:
    first = two.promote("busy", 1, by="alice")
    detour = two.promote("busy", 2, by="bob")
    two.restore(detour, by="bob")
    two.restore(first, by="alice")
    assert two.aliases("busy") == {}


@pytest.mark.parametrize("alias", ["latest", "v2", "Champion"])
def test_aliases_that_the_registry_keeps_for_itself_are_refused(two: Versions, alias: str) -> None:
    with pytest.raises(VersionError, match="is no alias"):
        two.promote("busy", 1, alias=alias, by="alice")
    assert two.history("busy") == ()


def test_metrics_of_labels_with_slashes_are_kept(kept: Versions, tmp_path: Path) -> None:
    names = ("f1 of /", "f1 of web/", "f1 of a//b", "f1 of https://x", "f1 of \u00e9", "f1 of \u00e8")
    metrics = {"accuracy": 0.75} | dict.fromkeys(names, 0.5)
    version = kept.register(
        "busy", make(tmp_path / "a", 0.5), EVALUATION.model_copy(update={"metrics": metrics})
    )
    assert version.record.evaluation is not None
    assert version.record.evaluation.metrics == metrics


def test_a_damaged_record_of_the_champion_is_no_obstacle_to_replacing_it(two: Versions, home: Path) -> None:
    two.promote("busy", 1, by="alice")
    damaged = home / "predictors" / "busy" / f"{two.get('busy').digest}.json"
    damaged.write_text("{}")
    diff = promotion_diff(two, two.get("busy", 2), 1)
    assert "-quality: not known: its record is damaged" in diff
    target = Target(LocalHost("web-1"), HostSpec(name="web-1"), home / "hosts" / "web-1")
    plan = PredictorPromote().plan(target, PromoteArguments(name="busy", version=2), key="S1")
    assert plan.preconditions["champion"] == 1


def test_only_what_was_expected_is_moved(two: Versions) -> None:
    two.promote("busy", 1, by="alice", expected=None)
    with pytest.raises(VersionError, match="names version 1, not nothing"):
        two.promote("busy", 2, by="alice", expected=None)
    assert len(two.history("busy")) == 1


def test_the_same_occasion_moves_once(two: Versions) -> None:
    first = two.promote("busy", 1, by="alice", key="step-1")
    two.promote("busy", 2, by="alice", key="step-2")
    assert two.promote("busy", 1, by="alice", key="step-1") == first
    assert two.get("busy").number == 2


def test_the_last_move_that_holds_is_what_a_rollback_takes_back(two: Versions) -> None:
    two.promote("busy", 1, by="alice")
    second = two.promote("busy", 2, by="alice")
    assert two.last_move("busy") == second
    two.restore(second, by="alice")
    last = two.last_move("busy")
    assert last is not None
    assert last.number == 1
    two.restore(last, by="alice")
    assert two.last_move("busy") is None


def test_opening_leaves_nothing_in_the_working_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Versions(home).register("busy", make(tmp_path / "a", 0.5))
    assert list((tmp_path / "here").iterdir()) == []


def test_a_database_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "predictors").mkdir()
    (tmp_path / "predictors" / "mlflow.db").write_text("nonsense " * 200)
    with pytest.raises(VersionError, match=r"mlflow\.db' cannot be used"):
        Versions(tmp_path)


@pytest.mark.parametrize(
    ("where", "method", "before"),
    [
        (files, "_sync_tree", True),
        (files, "sync_folder", False),
        (versions, "write_durably", False),
        (mlflow_store.MlflowStore, "_run", False),
        (mlflow_store.MlflowStore, "add", False),
    ],
)
def test_a_registration_that_is_killed_is_whole_after_the_next(
    home: Path, tmp_path: Path, where: object, method: str, before: bool
) -> None:
    folder = make(tmp_path / "a", 0.5)
    assert killed(
        where, method, lambda: Versions(home).register("busy", folder, EVALUATION, JOB), before=before
    )
    kept = Versions(home)
    assert kept.register("busy", folder, EVALUATION, JOB).number == 1
    assert [version.number for version in kept.list("busy")] == [1]
    kept.open("busy", 1)
    left = {path.name for path in (home / "predictors" / "busy").iterdir()}
    assert left == {kept.get("busy", 1).digest, f"{kept.get('busy', 1).digest}.json", "cards"}


def test_a_promotion_that_is_killed_between_intent_and_alias_did_not_take_place(
    two: Versions, home: Path
) -> None:
    two.promote("busy", 1, by="alice")
    assert killed(
        mlflow_store.MlflowStore,
        "set_alias",
        lambda: Versions(home).promote("busy", 2, by="alice", key="step"),
        before=True,
    )
    kept = Versions(home)
    move = kept.find_move("busy", "step")
    assert move is not None
    assert move.state is MoveState.NOT_DONE
    assert kept.get("busy").number == 1
    assert kept.promote("busy", 2, by="alice", key="step").state is MoveState.DONE
    assert [found.number for found in kept.history("busy")] == [1, 2]


def test_a_promotion_that_is_killed_after_the_alias_moved_took_place(two: Versions, home: Path) -> None:
    two.promote("busy", 1, by="alice")
    assert killed(
        mlflow_store.MlflowStore,
        "set_alias",
        lambda: Versions(home).promote("busy", 2, by="alice", key="step"),
        before=False,
    )
    kept = Versions(home)
    move = kept.find_move("busy", "step")
    assert move is not None
    assert (move.state, move.before, move.after) == (MoveState.DONE, 1, 2)
    kept.restore(move, by="alice")
    assert kept.get("busy").number == 1


def killed(where: object, name: str, work: Callable[[], object], *, before: bool) -> bool:
    """Run ``work`` in a child that is killed before or after it calls a function; whether it died so."""
    child = os.fork()
    if child == 0:
        call = getattr(where, name)

        def deadly(*arguments: Any, **named: Any) -> None:
            if not before:
                call(*arguments, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(where, name, deadly)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def test_a_move_is_settled_by_what_its_alias_names(two: Versions) -> None:
    move = two.promote("busy", 1, by="alice").model_copy(update={"state": MoveState.INTENDED})
    assert moves.settle(move, 1).state is MoveState.DONE
    assert moves.settle(move, None).state is MoveState.NOT_DONE
