"""The demo as a user plays it, with the default model: services are mended, and all of it is on record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from watchkeeper.demo.faults import SCENARIOS
from watchkeeper.models.home import models_folder
from watchkeeper.runtime.audit import AuditLog

pytestmark = [pytest.mark.model, pytest.mark.timeout(1500)]


def test_every_fault_is_mended_and_judged_from_outside(tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(models_folder())
    done = subprocess.run(
        [
            *(sys.executable, "-m", "watchkeeper.cli"),
            *("demo", "--all", "--approve", "yes", "--json", "--seed", "2026"),
        ],
        env={**os.environ, "WATCHKEEPER_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    results = json.loads(done.stdout or "[]")
    assert [result["scenario"] for result in results] == list(SCENARIOS), done.stderr[-2000:]
    played = [result for result in results if not result["skipped"]]
    assert len(played) >= 4
    assert [(result["scenario"], result["checks"]) for result in played if not result["ok"]] == []
    assert done.returncode == 0
    for result in played:
        assert Path(result["report"]).read_text(encoding="utf-8").startswith("# ")
        assert all("self-approved" in answer for answer in result["approvals"] if " approve " in answer)
    audit = AuditLog(tmp_path).verify()
    assert audit.ok, audit.problems
    assert audit.entries > 50
