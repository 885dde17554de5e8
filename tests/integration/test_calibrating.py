"""``watchkeeper models calibrate`` and ``adapters`` on a real, tiny model of the user's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from watchkeeper.models.adapter_store import add_adapter, installed_adapters, remove_adapter
from watchkeeper.models.catalog import find_model
from watchkeeper.models.errors import AdapterError
from watchkeeper.runtime.audit import AuditLog


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    hosted = tiny.hosted()
    hosted.model.save_pretrained(folder)
    hosted.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    path = tmp_path / "cases.jsonl"
    rows = [
        {
            "question": f"Which number is it? {number}",
            "neutral": "Which number is it?" if number % 2 else None,
            "lead": "It is",
            "options": ["one", "two or more", "none at all"],
            "answer": ["one", "two or more", "none at all"][number % 3],
            "topic": str(number // 2),
        }
        for number in range(48)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def run(home: Path, *arguments: object, before: str = "") -> subprocess.CompletedProcess[str]:
    script = f"import sys; {before}\nfrom watchkeeper.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "WATCHKEEPER_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_a_model_is_calibrated_plotted_and_the_result_kept(tmp_path: Path, model: Path, cases: Path) -> None:
    home = tmp_path / "home"
    arguments = ("models", "calibrate", model, "--cases", cases, "--quantization", "none")

    answer = run(home, *arguments, "--output", tmp_path / "plots", "--json")

    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    kept = json.loads(Path(found["file"]).read_text())
    assert Path(found["file"]).is_relative_to(home / "models")
    assert (kept["quantization"], len(kept["model_digest"])) == ("none", 64)
    assert kept["measured"] == found["measured"]
    counts = {(part["asked"], part["judged_by"]): part["after"]["cases"] for part in found["measured"]}
    assert counts == {
        ("plain", "cross-validation"): 32,
        ("plain", "held-out"): 16,
        ("corrected", "cross-validation"): 16,
        ("corrected", "held-out"): 8,
    }
    assert (tmp_path / "plots" / "reliability-none.png").read_bytes().startswith(b"\x89PNG")
    assert "calibrate: 100 %" in answer.stderr


def test_without_matplotlib_the_extra_is_named_before_any_work(tmp_path: Path, model: Path) -> None:
    without = "sys.modules['matplotlib'] = None"
    answer = run(tmp_path, "models", "calibrate", model, before=without)

    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "pip install 'watchkeeper[plots]'" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no-such-model",), "no model 'no-such-model' in the catalog"),
        (("MODEL", "--cases", "nowhere.jsonl"), "nowhere.jsonl cannot be read"),
        (("MODEL", "--cases", "CASES", "--limit", "5"), "are too few"),
        (("MODEL", "--cases", "CASES", "--quantization", "int3"), "no quantization 'int3'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tmp_path: Path, model: Path, cases: Path, arguments: tuple[str, ...], said: str
) -> None:
    home = tmp_path / "home"
    placed = {"MODEL": model, "CASES": cases}

    answer = run(home, "models", "calibrate", *(placed.get(part, part) for part in arguments))

    assert answer.returncode == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not list(home.rglob("calibration*"))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_adapters_are_added_listed_and_removed(tmp_path: Path, model: Path) -> None:
    from peft import LoraConfig, get_peft_model

    trained, home = tmp_path / "trained", tmp_path / "home"
    get_peft_model(tiny.hosted().model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(
        str(trained)
    )

    def adapters(*arguments: object) -> Any:
        return run(home, "models", "adapters", *arguments, "--model", model, "--json")

    added = json.loads(adapters("add", "site", trained).stdout)
    assert (added["layers"], added["rank"]) == (2, 2)
    assert sorted(path.name for path in Path(added["folder"]).iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert json.loads(adapters("list").stdout) == [added]
    refused = adapters("add", "site", trained)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    entry = find_model(str(model))
    for change, said in (
        (lambda: add_adapter(entry, "site", trained, home), "has an adapter 'site' already"),
        (lambda: add_adapter(entry, "../site", trained, home), "is no name for an adapter"),
        (lambda: add_adapter(entry, "other", tmp_path, home), "holds no adapter_config.json"),
        (lambda: remove_adapter(entry, "other", home), r"has no adapter 'other' \(it has: site\)"),
    ):
        with pytest.raises(AdapterError, match=said):
            change()
    assert list(installed_adapters(entry, home)) == ["site"]
    assert adapters("remove", "site").returncode == 0
    assert installed_adapters(entry, home) == {}
    assert list((home / "adapters").rglob("*.safetensors")) == []
    assert [entry.kind for entry in AuditLog(home).entries()] == ["adapter-added", "adapter-removed"]
