"""`watchkeeper predictors`: what people see, what programs get, and who may say which version answers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from tests.predictor_homes import home_with_two
from tests.threshold import make
from watchkeeper.cli import build_app, predictors_changes
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.journal import Journal
from watchkeeper.tools.host import LocalHost, Target
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.predictors import drift
from watchkeeper.tools.predictors.recording import FILE, Predictions, Recorded
from watchkeeper.tools.versions import Versions
from watchkeeper.tools.versions.promotion import PredictorPromote, PromoteArguments
from watchkeeper.tools.versions.server_file import running_servers

ROOT = Path(__file__).parents[2]
_SERVE = """
import os
import sys
from tests.threshold import KIND
from watchkeeper.tools.predictors import register_kind
from watchkeeper.cli import main
register_kind(KIND, "tests.threshold:" + ("Moody" if "TESTS_MOOD" in os.environ else "Threshold"))
sys.argv = ["watchkeeper", *sys.argv[1:]]
main()
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = Path(shutil.copytree(home_with_two(), tmp_path / "home"))
    monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
    monkeypatch.delenv("WATCHKEEPER_TOKEN", raising=False)
    return home


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that no test of this module changes."""
    return Path(shutil.copytree(home_with_two(), tmp_path_factory.mktemp("untouched") / "home"))


@pytest.fixture
def looked_at(untouched: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(untouched))
    monkeypatch.delenv("WATCHKEEPER_TOKEN", raising=False)
    return untouched


def invoke(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(build_app(), ["predictors", *arguments], input=f"{answer}\n")


def test_lists_and_records_are_for_people_and_programs(looked_at: Path) -> None:
    listed = invoke("list")
    assert listed.exit_code == 0
    assert "accuracy 0.75 (20 rows)" in listed.stdout
    versions = json.loads(invoke("list", "--json").stdout)["versions"]
    assert [(one["version"], one["quality"]) for one in versions] == [(1, 0.75), (2, 0.8)]
    shown = json.loads(invoke("show", "busy", "1", "--json").stdout)
    assert shown["record"]["job"]["id"] == "JOB-1"
    assert shown["history"] == []
    assert "**" not in invoke("show", "busy", "2").stdout


def test_a_damaged_version_is_told_beside_those_that_are_whole(home: Path) -> None:
    version = Versions(home).get("busy", 1)
    record = version.folder.with_name(f"{version.digest}.json")
    record.write_text(record.read_text().replace('"accuracy":0.75', '"accuracy":0.99'))
    listed = invoke("list")
    assert listed.exit_code == 1
    assert "accuracy 0.8 (20 rows)" in listed.stdout
    assert "0.99" not in listed.output
    assert "damaged: version 1 of 'busy': " in listed.stderr
    told = json.loads(invoke("list", "--json").stdout)
    assert [one["version"] for one in told["versions"]] == [2]
    assert len(told["damaged"]) == 1


def test_a_card_is_printed_and_says_where_it_is(looked_at: Path) -> None:
    assert invoke("card", "busy", "1").stdout.startswith("# busy version 1\n")
    assert "<h1>busy version 1</h1>" in invoke("card", "busy", "1", "--html").stdout
    for line in invoke("card", "busy", "1", "--path").stdout.split():
        assert Path(line).is_file()


def test_registering_the_same_folder_twice_is_one_version(home: Path, tmp_path: Path) -> None:
    folder = make(tmp_path / "c", 0.7)
    assert invoke("register", "busy", str(folder)).stdout.startswith("version 3 of busy")
    again = json.loads(invoke("register", "busy", str(folder), "--json").stdout)
    assert again["version"] == 3
    told = list(AuditLog(home).entries())[-1]
    assert told.kind == "predictor-registered"
    assert (told.data["version"], told.data["digest"]) == (3, again["digest"])


def test_versions_are_compared_as_they_were_scored(looked_at: Path) -> None:
    found = json.loads(invoke("compare", "busy", "2", "--champion", "1", "--json").stdout)
    assert (found["verdict"], found["rows"]) == ("undecided", 20)


def test_a_file_is_answered(looked_at: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("load\n0.55\n0.7\n")
    out = tmp_path / "out.csv"
    done = invoke("predict", "busy", str(tmp_path / "in.csv"), "-o", str(out), "--version", "2")
    assert done.exit_code == 0
    assert "2 rows answered by version 2 of busy" in done.stdout
    assert [line.split(",")[1] for line in out.read_text().splitlines()] == ["busy", "false", "true"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "lazy"], "there is no predictor 'lazy'; there are: busy"),
        (["show", "busy"], "predictor 'busy' has no version 'champion'; versions: 1, 2; aliases: none"),
        (["rollback", "busy"], "no move of 'champion' of 'busy' is left to be taken back"),
        (["register", "busy", "JOB-NONE"], "'JOB-NONE' is neither a folder nor a training job"),
        (["promote", "busy", "2"], "takes a yes of a person at a terminal"),
        (["serve", "lazy"], "there is no predictor 'lazy'"),
        (["serve", "--shadow", "--canary", "0.1"], "a shadow or a canary"),
    ],
)
def test_mistakes_are_told_in_one_line(looked_at: Path, arguments: list[str], said: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_without_any_predictor_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path / "new"))
    assert "no predictor is registered" in invoke("list").stderr
    assert not (tmp_path / "new" / "predictors").exists()


def test_a_person_promotes_and_takes_back_at_a_terminal_and_that_is_audited(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictors_changes, "_at_terminal", lambda: True)
    done = invoke("promote", "busy", "2", "--reason", "better", answer="y")
    assert done.exit_code == 0
    assert "+accuracy: 0.8 (20 rows)" in done.stderr
    assert Versions(home).get("busy").number == 2
    assert invoke("rollback", "busy", answer="n").exit_code != 0
    assert Versions(home).get("busy").number == 2
    done = invoke("rollback", "busy", answer="y")
    assert (done.exit_code, Versions(home).aliases("busy")) == (0, {})
    entries = [(entry.kind, entry.data) for entry in AuditLog(home).entries()]
    assert [kind for kind, _ in entries] == [
        "predictor-promoting",
        "predictor-promoted",
        "predictor-restoring",
        "predictor-restored",
    ]
    data = entries[1][1]
    assert isinstance(data, dict)
    assert (data["before"], data["after"], data["reason"]) == (None, 2, "better")


def test_where_streams_are_not_watched_that_is_said_and_the_rest_is(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invoke("drift", "busy", "--version", "1").stderr == ""
    monkeypatch.setattr(drift, "find_spec", lambda _: None)
    done = invoke("drift", "busy", "--version", "1")
    assert (done.exit_code, "busy version 1: 0 predictions" in done.stdout) == (0, True)
    assert done.stderr.startswith("streams of labelled answers are not watched (the rest is)")


def test_texts_that_look_like_numbers_are_compared_as_the_texts_that_were_asked(home: Path) -> None:
    rows = [{"load": 0.1 + number % 7 / 10, "rack": f"00{number % 5}"} for number in range(300)]
    at = datetime.now(UTC)
    kept = Predictions(home / "predictors" / FILE)
    kept.record(
        [
            Recorded("busy", str(number), 1, "champion", at, row, {"busy": False})
            for number, row in enumerate(rows)
        ]
    )
    kept.close()
    reference = home.parent / "reference.csv"
    reference.write_text("load,rack\n" + "".join(f"{row['load']},{row['rack']}\n" for row in rows))
    done = invoke("drift", "busy", "--version", "1", "--reference", str(reference), "--json")
    columns = json.loads(done.stdout)["columns"]
    assert {name: one["psi"] for name, one in columns.items()} == {"load": 0, "rack": 0}
    assert done.exit_code == 0


@contextlib.contextmanager
def served(home: Path, *arguments: str) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, "predictors", "serve", "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "WATCHKEEPER_HOME": str(home)},
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (found := [one for one in running_servers(home / "predictors") if one.pid == process.pid]):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield found[0].address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        if process.stderr:
            process.stderr.close()


def ask(address: str, load: float, name: str, rows: int = 1) -> dict[str, object]:
    request = urllib.request.Request(
        f"{address}/v1/predictors/busy/predict",
        data=json.dumps({"rows": [{"load": load}] * rows, "id": name}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        said: dict[str, object] = json.loads(answer.read())
    return said


def test_a_served_champion_is_replaced_without_a_restart_and_the_server_verifies_it(home: Path) -> None:
    versions = Versions(home)
    versions.promote("busy", 1, by="alice")
    target = Target(LocalHost("web-1"), HostSpec(name="web-1"), home / "hosts" / "web-1")
    action = PredictorPromote()
    lazy = make(home.parent / "lazy", 0.5)
    versions.register("lazy", lazy)
    with served(home) as address, served(home, "lazy"):
        assert ask(address, 0.55, "r1")["version"] == 1
        plan = action.plan(target, PromoteArguments(name="busy", version=2), key="S1")
        action.apply(target, plan)
        moved = time.monotonic()
        while ask(address, 0.55, f"r{time.monotonic_ns()}")["version"] != 2:
            assert time.monotonic() - moved < 20
        verified = action.verify(target, plan)
        assert verified.ok
        assert verified.detail == f"{address} answers with version 2 of busy"
        assert ask(address, 0.55, "last")["answers"] == [{"busy": False, "score": pytest.approx(-0.05)}]
    assert running_servers(home / "predictors") == ()
    (home.parent / "labels.csv").write_text("id,label\nr1,true\nnever,true\n")
    labelled = json.loads(invoke("label", "busy", str(home.parent / "labels.csv"), "--json").stdout)
    assert labelled == {"labelled": 1, "unknown": ["never"]}
    (home.parent / "empty.csv").write_text("id,label\nr1,\n")
    empty = invoke("label", "busy", str(home.parent / "empty.csv"))
    assert (empty.exit_code, "row 1: the label is empty" in empty.stderr) == (2, True)
    report = json.loads(invoke("drift", "busy", "--version", "1", "--json").stdout)
    assert report["rows"] >= 1
    assert report["quality"]["labels"] == 1


def test_a_server_that_becomes_slow_and_then_fails_raises_an_alert(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Versions(home).promote("busy", 1, by="alice")
    (home / "inventory.yaml").write_text("hosts: [{name: web-1}]")
    (home / "config.yaml").write_text(
        yaml.safe_dump({"tools": ["watchkeeper.tools.versions.tools:predictor_tools"]})
    )
    mood = home.parent / "mood"
    monkeypatch.setenv("TESTS_MOOD", str(mood))
    with served(home) as address:
        mood.write_text("well")
        for number in range(30):
            ask(address, 0.55, f"well-{number}")
        before = invoke("drift", "busy", "--alert-host", "web-1")
        mood.write_text("slow")
        for number in range(14):
            ask(address, 0.55, f"slow-{number}")
        slow = json.loads(invoke("drift", "busy", "--alert-host", "web-1", "--json").stdout)
        mood.write_text("broken")
        for number in range(3):
            with pytest.raises(urllib.error.HTTPError, match="500"):
                ask(address, 0.55, f"broken-{number}", rows=20)
    assert (before.exit_code, "not as it was" in before.stdout) == (0, False)
    assert slow["signals"] == ["latency"]
    assert (slow["latency"]["batches"], slow["latency"]["slow"]) == (22, 14)
    assert slow["latency"]["before"] < 0.25 < 0.5 <= slow["latency"]["now"]
    told = invoke("drift", "busy", "--alert-host", "web-1", "--plot", str(home.parent / "drift.png"))
    assert told.exit_code == 1
    assert "it failed at 60 of the newest " in told.stdout
    assert "not as it was: latency, errors\n" in told.stdout
    assert f"submitted {slow['incident']}" not in told.stdout
    assert (home.parent / "drift.png").read_bytes().startswith(b"\x89PNG")
    with Journal(home) as journal:
        opened = {
            incident.alert.title.partition(") ")[2]: incident.id for incident in journal.incidents.list()
        }
    assert opened.keys() == {"answers slower than at first", "fails more often than it may"}
    assert slow["incidents"] == [opened["answers slower than at first"]]
