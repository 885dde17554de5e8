"""What a host refuses is told, and ends no incident."""

from pathlib import Path

import pytest

from watchkeeper.tools.errors import CollectError
from watchkeeper.tools.fact import Arguments, Fact, Raw, Result
from watchkeeper.tools.host import LocalHost, Target
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.registry import Registry


class Note(Result):
    """A note."""

    text: str


class NoteFact(Fact[Arguments, Note]):
    """A fact that looks at a file itself."""

    name = "note.text"
    summary = "what the note says"
    arguments_type = Arguments
    result_type = Note

    def __init__(self, path: Path) -> None:
        self._path = path

    def collect(self, target: Target, arguments: Arguments) -> Raw:
        return {"text": self._path.read_text()}

    def interpret(self, raw: Raw, arguments: Arguments) -> Note:
        return Note.model_validate(raw)


def test_a_program_that_is_missing_or_no_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no program")
    with pytest.raises(CollectError, match=r"data' cannot be run on host 'here': Permission denied"):
        LocalHost("here").run([str(tmp_path / "data")])
    with pytest.raises(CollectError, match=r"none' is not installed on host 'here'"):
        LocalHost("here").run([str(tmp_path / "none")])


def test_what_the_system_refuses_a_fact_is_evidence(tmp_path: Path) -> None:
    target = Target(LocalHost("here"), HostSpec(name="here"), tmp_path)
    seen = Registry([NoteFact(tmp_path / "none")]).gather("note.text", target, {}, id="E1")
    assert seen.result is None
    assert seen.error == f"note.text: No such file or directory: {str(tmp_path / 'none')!r}"
