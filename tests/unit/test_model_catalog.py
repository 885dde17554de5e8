"""Naming a model: the catalog, a folder, a repository of the Hub; soundness of a folder's files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from watchkeeper.models.catalog import CATALOG, default_model, find_model
from watchkeeper.models.errors import IntegrityError, UnknownModelError
from watchkeeper.models.formats import check_folder, check_safetensors
from watchkeeper.models.home import home_folder, models_folder


def test_the_default_is_a_model_that_a_cpu_can_run() -> None:
    assert default_model().id == "qwen2.5-coder-0.5b-instruct"


def test_every_file_of_the_catalog_is_pinned_by_its_digest() -> None:
    for entry in CATALOG:
        assert entry.file is not None
        assert len(bytes.fromhex(entry.file.sha256)) == 32
        assert entry.file.size > 0
        assert entry.hub or entry.index_parts


def test_an_unknown_id_gets_the_known_ones_and_a_guess() -> None:
    with pytest.raises(UnknownModelError) as caught:
        find_model("qwen2.5-coder-0.5b-instrukt")

    message = str(caught.value)
    assert "'qwen2.5-coder-0.5b-instrukt'" in message
    assert "Did you mean 'qwen2.5-coder-0.5b-instruct'?" in message
    assert "smollm2-135m-instruct" in message


def test_a_folder_is_a_model_when_it_holds_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match=r"no config\.json"):
        find_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")

    assert find_model(str(tmp_path)).folder == tmp_path


@pytest.mark.parametrize("model_id", ["maker/model", "maker/model@main", "maker/model@1234abc"])
def test_a_repository_without_a_commit_is_refused(model_id: str) -> None:
    with pytest.raises(UnknownModelError, match="40 hexadecimal digits"):
        find_model(model_id)


def test_a_repository_at_a_commit_is_a_model() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"

    entry = find_model(f"maker/model@{commit}")

    assert entry.hub is not None
    assert (entry.hub.repository, entry.hub.revision) == ("maker/model", commit)


def test_the_environment_says_where_models_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path))
    assert home_folder() == tmp_path
    assert models_folder() == tmp_path / "models"

    monkeypatch.delenv("WATCHKEEPER_HOME")
    assert home_folder().name == "watchkeeper"


def safetensors(header: object, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


SOUND = safetensors({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (SOUND[:-1], "promises"),
        (SOUND + b"x", "promises"),
        (SOUND[:20], "truncated"),
        (b"", "truncated"),
        (struct.pack("<Q", 1 << 60) + bytes(100), "truncated"),
        (safetensors(["no", "mapping"], b""), "unreadable"),
        (struct.pack("<Q", 4) + b"{{{{", "unreadable"),
        (b"\x80\x04" + SOUND, "pickle"),
        (b"PK\x03\x04" + SOUND, "pickle"),
    ],
)
def test_unsound_safetensors_are_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)

    with pytest.raises(IntegrityError, match=complaint):
        check_safetensors(path)


def test_a_folder_of_pickles_is_refused_by_name(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(IntegrityError, match=r"pytorch_model\.bin is a pickle"):
        check_folder(tmp_path)

    (tmp_path / "model.safetensors").write_bytes(SOUND)
    check_folder(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(SOUND)

    with pytest.raises(IntegrityError, match=r"no tokenizer\.json"):
        check_folder(tmp_path)
