"""What `watchkeeper run` shows: a line an event, what is old and what new, and what a flag cannot change."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.lamp import ALERT, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper import Settings
from watchkeeper.cli.run import handle, keep_options, say_what_sandbox_is_missing, say_what_solo_cannot_change
from watchkeeper.cli.terminal import Terminal
from watchkeeper.cli.view import EventView
from watchkeeper.runtime.errors import ConfigurationError
from watchkeeper.runtime.events import DecisionMade, EvidenceGathered, Option
from watchkeeper.runtime.runs import RunFile
from watchkeeper.tools import sandbox
from watchkeeper.tools.findings import Finding, Severity


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder / "home"


def paper(**options: bool) -> Console:
    return Console(file=io.StringIO(), width=60, **options)  # type: ignore[arg-type]


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def gathered(*texts: str) -> EvidenceGathered:
    findings = tuple(Finding(kind="k", subject="s", severity=Severity.WARNING, text=text) for text in texts)
    return EvidenceGathered(evidence_id="E7", fact="disk.largest", host="h", findings=findings)


def test_an_event_is_one_line_in_a_log_and_is_indented_on_a_terminal() -> None:
    event = gathered("The file /a takes 5 MiB.", "The file /b takes [bold]4 MiB.", "word " * 20 + "\x1b[31m")
    log, terminal = paper(), paper(force_terminal=True, no_color=True)
    EventView(log).show(event)
    EventView(terminal).show(event)
    (line,) = written(log).splitlines()
    assert "disk.largest  The file /a takes 5 MiB; The file /b takes [bold]4 MiB; word" in line
    assert line.endswith("E7")
    assert "\x1b" not in line
    first, *others = (line for line in Console().render_str(written(terminal)).plain.splitlines())
    assert "disk.largest" in first
    assert others
    assert all(line.startswith(" " * 17) for line in others)


def test_a_question_with_one_option_is_not_shown_as_a_decision() -> None:
    def asked(*texts: str) -> DecisionMade:
        options = tuple(Option(text=text, probability=1 / len(texts)) for text in texts)
        return DecisionMade(
            decision_id="D1", role="remediator", question="Which?", options=options, chosen=0, confidence=1
        )

    console = paper()
    EventView(console).show(asked("only"))
    assert not written(console)
    EventView(console).show(asked("one", "other"))
    assert "remediator  Which? 50% one; 50% other" in written(console)


def test_what_was_before_is_told_apart_and_a_question_of_a_shared_run_stays_one(
    tmp_path: Path, home: Path
) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    first, second = paper(), paper()
    with orchestrator(home, lamp, prefers("switch"), requester="ann") as o:
        incident = o.open(ALERT).id
        handle(o, incident, Terminal(first), approve="ask", wait=False)
        (asked,) = o.journal.approvals.list()
        say_what_solo_cannot_change(o, incident, second)
        o.answer(asked.id, "approve", by="bob")
        handle(o, incident, Terminal(second), approve="ask", wait=False)
        say_what_solo_cannot_change(o, incident, second)
    assert "so far:" not in written(first)
    assert "now:" not in written(first)
    said = written(second).replace(" \n", " ")
    assert said.count(f"{asked.id} was asked without --solo: 'ann' may not approve it") == 1
    assert said.index("so far:") < said.index("alert") < said.index("now:") < said.index("resolved")
    assert said.count("approval  ") == 1


TWICE = """version: 1
people: {bob: {channels: [file]}}
policies: {p: {levels: [{who: {users: [bob]}, wait: 5m, repeat: 1}]}}
default: p
"""


@pytest.mark.parametrize("rules", [TWICE, None])
def test_a_run_that_ends_says_who_makes_the_next_call(tmp_path: Path, home: Path, rules: str | None) -> None:
    lamp, console = Lamp.dark(tmp_path, switch="off"), paper()
    with orchestrator(home, lamp, prefers("switch"), escalation=rules) as o:
        incident = o.open(ALERT).id
        handle(o, incident, Terminal(console), approve="ask", wait=False)
        (called,) = o.journal.escalations.list()
    said = [line for line in written(console).splitlines() if "is made by" in line]
    if rules is None:  # whoever is at the terminal was called, and nobody is called again
        assert (called.due_at, said) == (None, [])
    else:
        (line,) = said
        assert line.startswith(f"{called.id}: the next call at {called.due_at:%Y-%m-%d %H:%M:%S} UTC")
        assert line.endswith("is made by `watchkeeper serve` or the next run, and by nobody else")


def test_a_sandbox_that_is_missing_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=30)
    monkeypatch.setattr(sandbox, "find_sandbox", lambda: sandbox.Sandbox("", "/usr/bin/prlimit", "no bwrap"))
    say_what_sandbox_is_missing(console)
    assert written(console) == "commands of facts run WITHOUT a full sandbox: no bwrap\n"
    monkeypatch.setattr(sandbox, "find_sandbox", lambda: sandbox.Sandbox("/usr/bin/bwrap", "x", ""))
    say_what_sandbox_is_missing(console)
    assert written(console).count("\n") == 1


def test_an_incident_keeps_what_it_was_begun_with(tmp_path: Path) -> None:
    first = Settings(home=tmp_path, solo=True)
    keep_options(first, "INC-0000")
    keep_options(Settings(home=tmp_path, solo=False), "INC-0000")
    kept = RunFile.read(tmp_path, "INC-0000")
    assert kept == RunFile.of(first)


def test_an_alert_that_joins_what_only_observes_does_not_make_it_act(tmp_path: Path) -> None:
    keep_options(Settings(home=tmp_path, observe_only=True), "INC-0000")
    with pytest.raises(ConfigurationError, match=r"begun only to observe .*--resume INC-0000"):
        keep_options(Settings(home=tmp_path), "INC-0000")
    keep_options(Settings(home=tmp_path, observe_only=True), "INC-0000")
