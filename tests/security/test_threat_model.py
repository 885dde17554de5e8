"""The threat model names a test for each defence, and each of them is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def text() -> str:
    (path,) = (ROOT / "design").glob("*-threat-model.md")
    return path.read_text(encoding="utf-8")


def test_every_test_that_the_threat_model_names_is_there() -> None:
    named = NAMED.findall(text())
    assert len(named) > 25
    for file, name in named:
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"


def test_every_defence_has_a_test() -> None:
    section = text().split("## Defences")[1].split("\n## ")[0]
    defences = re.split(r"\n- \*", section)[1:]
    assert len(defences) >= 10
    assert [defence.split("*")[0] for defence in defences if not NAMED.search(defence)] == []


def test_each_of_the_ten_has_a_file_of_its_own() -> None:
    for number in range(1, 11):
        (file,) = Path(__file__).parent.glob(f"test_asi{number:02}_*.py")
        assert f"ASI{number:02}" in text()
        assert file.read_text(encoding="utf-8").startswith(f'"""ASI{number:02}, ')
