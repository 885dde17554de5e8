"""The demo leaves alone what it finds of real hosts, and shows names as they are."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from watchkeeper.cli import demo
from watchkeeper.demo.errors import DemoError
from watchkeeper.demo.judge import OracleCheck
from watchkeeper.demo.runner import ScenarioResult, free_host
from watchkeeper.demo.site import Site


def test_a_real_host_of_a_drawn_name_keeps_its_state(tmp_path: Path) -> None:
    kept, seed = free_host(tmp_path, 7)
    assert (kept, seed) == (tmp_path / Site.drawn(7, Path("/"), 1).host, 7)
    # What a demo left behind is a demo's to use and to remove again.
    assert free_host(tmp_path, 7) == (kept, 7)
    for mine in kept.iterdir():
        mine.unlink()
    (kept / "quarantine").mkdir()
    other, seed = free_host(tmp_path, 7)
    assert other != kept
    assert other == tmp_path / Site.drawn(seed, Path("/"), 1).host


def test_a_demo_without_a_free_name_is_refused(tmp_path: Path) -> None:
    for seed in range(1000):
        (tmp_path / Site.drawn(seed, Path("/"), 1).host).mkdir(exist_ok=True)
    with pytest.raises(DemoError, match="no free name"):
        free_host(tmp_path, 0)


def test_results_are_shown_as_they_are_whatever_brackets_and_controls_are_in_them() -> None:
    out = io.StringIO()
    console = Console(file=out, width=200)
    odd = "was cut: [/srv/a] [red]\x1b[2J"
    check = OracleCheck(name="files", ok=False, detail=odd)
    result = ScenarioResult(scenario="killed", seed=1, fault=odd, report="/home/[/x]/r.md", checks=(check,))
    demo._verdict(console, result)
    demo._table(console, [result, ScenarioResult(scenario="stale", seed=1, skipped="[/no]")])
    demo._verdict(console, ScenarioResult(scenario="stale", seed=1, skipped="[/no]"))
    said = out.getvalue()
    assert "files: was cut: [/srv/a] [red]" in said
    assert "report: /home/[/x]/r.md" in said
    assert said.count("skipped: [/no]") == 2
    assert "\x1b" not in said
