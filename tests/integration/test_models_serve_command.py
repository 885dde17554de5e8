"""``watchkeeper models serve``: mistakes are one line before a model is loaded, and keys are shown once."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from watchkeeper.models.server.errors import ServerError
from watchkeeper.models.server.keys import ApiKeys, add_key


def run(home: Path, *arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "watchkeeper.cli"] if not code else [sys.executable, "-c", code]
    return subprocess.run(
        [*program, "models", *arguments],
        env={**os.environ, "WATCHKEEPER_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def complaint(home: Path, *arguments: str, code: str = "") -> str:
    answer = run(home, *arguments, code=code)
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.count("\n") == 1
    assert answer.stderr.startswith("error: ")
    return answer.stderr


def test_a_key_is_printed_once_and_only_its_digest_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    answer = run(tmp_path, "api-key", "laptop", "--file", str(file))
    key = answer.stdout.strip()

    assert answer.returncode == 0
    assert ApiKeys.read(file).holder(key) == "laptop"
    assert ApiKeys.read(file).holder(key + "x") is None
    assert key not in file.read_text()
    assert key not in answer.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_keys_are_added_and_removed_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    first, second = add_key(file, "a"), add_key(file, "b")
    with pytest.raises(ServerError, match="a key 'a' already"):
        add_key(file, "a")
    with pytest.raises(ServerError, match="no name"):
        add_key(file, "a b")
    kept = [line for line in file.read_text().splitlines() if not line.startswith("a ")]
    file.write_text("\n".join(kept))

    assert ApiKeys.read(file).holder(first) is None
    assert ApiKeys.read(file).holder(second) == "b"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no API key"),
        ("# nothing\n\n", "holds no API key"),
        ("wk-a-plain-key\n", "line 1"),
        ("# ok\nme sha256:abc\n", "line 2"),
        (f"me sha256:{'0' * 64}\nme sha256:{'1' * 64}\n", "repeats the name 'me'"),
    ],
)
def test_a_file_of_keys_that_is_not_right_is_said_and_not_shown(
    tmp_path: Path, text: str, reason: str
) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ServerError, match=reason) as caught:
        ApiKeys.read(file)
    assert "wk-a-plain-key" not in str(caught.value)


def test_mistakes_are_found_before_a_model_is_looked_for(tmp_path: Path) -> None:
    assert "cannot be read" in complaint(tmp_path, "serve", "--api-key-file", str(tmp_path / "none"))
    assert "--insecure" in complaint(tmp_path, "serve", "--host", "0.0.0.0")
    assert "no model 'gpt'" in complaint(tmp_path, "serve", "gpt")
    assert "--quantization" in complaint(tmp_path, "serve", "--quantization", "int3")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = complaint(tmp_path, "serve", "--port", str(taken.getsockname()[1]))
    assert "choose another --host or --port" in said


def test_without_the_extra_its_name_is_said(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['starlette'] = None; sys.modules['prometheus_client'] = None;"
        "from watchkeeper.cli import main; main()"
    )
    assert "pip install 'watchkeeper[serve]'" in complaint(tmp_path, "serve", code=code)


def test_an_endpoint_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert "holds a name or password" in complaint(tmp_path, "serve", "http://me:secret@host/v1")
