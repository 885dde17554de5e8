"""A report tells what happened, shows what others wrote, and lets none of it act on who reads it."""

from pathlib import Path

from tests.lamp import ALERT, ALLOW, Lamp, orchestrator, prefers
from watchkeeper.runtime.report import record_lines
from watchkeeper.runtime.report_markdown import render_markdown


def test_neither_links_nor_pictures_nor_terminal_controls_come_from_what_others_wrote(tmp_path: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off\x1b[2J```")
    title = "dark ![now](http://x/p.png) [here](http://x) \\[there](http://x) \x1b]0;t\x07"
    alert = ALERT.model_copy(update={"title": title})
    with orchestrator(tmp_path / "home", lamp, prefers()) as running:
        incident = running.open(alert).id
        running.changes.propose(
            incident, host="house", action="switch.set", arguments={"position": "on"}, key="k"
        )
        said = render_markdown(running.report(incident))
    assert "dark !\\[now](http://x/p.png) \\[here](http://x) \\\\\\[there](http://x)" in said
    assert "-switch: off\ufffd[2J'''\n+switch: on\n```\n" in said
    assert "\x1b" not in said
    assert "![" not in said
    assert " [here]" not in said


def test_the_reporter_is_not_told_that_nothing_was_done_where_something_was(tmp_path: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    with orchestrator(tmp_path / "home", lamp, prefers(), rules=ALLOW) as running:
        incident = running.open(ALERT).id
        step = running.changes.propose(
            incident, host="house", action="switch.set", arguments={"position": "on"}, key="k"
        )
        running.changes.decide(step.id)
        running.apply(step.id)
        # Nobody was asked: the policy allows it.
        told = record_lines(running.journal, incident, verdict="resolved", reason="it shines")
        assert "The action switch.set was applied and verified." in told
        running.changes.rollback(step.id)
        told = record_lines(
            running.journal, incident, verdict="closed", reason="what was tried was taken back"
        )
    assert "The action switch.set was applied, did not help and was taken back." in told
    assert told[-1] == "The incident was closed: what was tried was taken back."
