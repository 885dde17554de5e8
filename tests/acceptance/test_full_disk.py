"""A disk that fills up during an incident: told in one line, nothing lost, and the work goes on after."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a real model that answers by chance."""
    folder = tmp_path / "model"
    made = tiny.hosted()
    made.model.config.max_position_embeddings = 65_536
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def watchkeeper(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WATCHKEEPER_")}
    return subprocess.run(
        [sys.executable, "-m", "watchkeeper.cli", *map(str, arguments)],
        env={**kept, "WATCHKEEPER_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=200,
    )


def test_an_incident_stops_at_a_full_disk_and_goes_on_once_there_is_room(
    small_disk: Path, model: Path, tmp_path: Path
) -> None:
    (small_disk / "inventory.yaml").write_text("hosts: [{name: web-1}]\n")
    alert = tmp_path / "alert.yaml"
    alert.write_text("title: slow\nhost: web-1\ncondition: {kind: http, url: 'http://127.0.0.1:1/'}\n")
    assert watchkeeper(small_disk, "incidents", "list").returncode == 0
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk)
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - 250_000))

    options = ("--model", model, "--quantization", "none", "--approve", "no")
    stopped = watchkeeper(small_disk, "run", alert, *options)

    assert stopped.returncode == 2, stopped.stderr
    assert "Traceback" not in stopped.stderr
    said = stopped.stderr.splitlines()[-1]
    assert said.startswith("error: ")
    assert str(small_disk) in said
    (incident,) = json.loads(watchkeeper(small_disk, "incidents", "list", "--json").stdout)
    assert incident["status"] not in {"resolved", "closed", "escalated"}

    ballast.unlink()
    resumed = watchkeeper(small_disk, "run", "--resume", incident["id"], "--approve", "no")

    assert resumed.returncode in {0, 4}, resumed.stderr
    (ended,) = json.loads(watchkeeper(small_disk, "incidents", "list", "--json").stdout)
    assert ended["status"] in {"escalated", "closed"}
    verified = watchkeeper(small_disk, "audit", "verify")
    assert verified.returncode == 0, verified.stderr
    shown = json.loads(watchkeeper(small_disk, "incidents", "show", incident["id"], "--json").stdout)
    assert [event["seq"] for event in shown["events"]] == list(range(1, len(shown["events"]) + 1))
    assert (small_disk / "reports" / f"{incident['id']}.md").exists()
