"""A report shows what others wrote and lets none of it act on who reads it."""

from pathlib import Path

from tests.lamp import ALERT, Lamp, orchestrator, prefers
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
