"""``watchkeeper models``: one line for a mistake, data on standard output, and no heavy import for help."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def run(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "watchkeeper.cli", *arguments],
        env={**os.environ, "WATCHKEEPER_HOME": str(home), "HF_HUB_OFFLINE": "1", **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys; from watchkeeper.cli import build_app; build_app();"
        "print([name for name in ('torch', 'transformers', 'langgraph', 'httpx', 'pydantic')"
        " if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert answer.stdout == "[]\n"
    assert "models" in run(tmp_path, "--help").stdout


def test_the_list_is_json_for_programs(tmp_path: Path) -> None:
    answer = run(tmp_path, "models", "list", "--json")

    models = {row["id"]: row for row in json.loads(answer.stdout)}
    assert models["qwen2.5-coder-0.5b-instruct"]["installed"] is False
    assert models["qwen2.5-coder-0.5b-instruct"]["licence"] == "Apache-2.0"


@pytest.mark.parametrize("command", ["info", "pull", "verify", "remove"])
def test_an_unknown_model_is_one_line_and_code_2(tmp_path: Path, command: str) -> None:
    answer = run(tmp_path, "models", command, "smollm3")

    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.count("\n") == 1
    assert answer.stderr.startswith("error: no model 'smollm3' in the catalog.")


@pytest.mark.parametrize("command", ["verify", "remove"])
def test_a_model_that_was_not_pulled_is_one_line_and_code_2(tmp_path: Path, command: str) -> None:
    answer = run(tmp_path, "models", command, "smollm2-135m-instruct")

    assert answer.returncode == 2
    assert answer.stderr.startswith("error: the model 'smollm2-135m-instruct' is not on this machine")
    assert answer.stderr.count("\n") == 1


def test_a_wrong_file_is_one_line_and_code_2(tmp_path: Path) -> None:
    (tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(
        b"GGUF\x03\x00\x00\x00 and far too little of it"
    )

    answer = run(tmp_path / "home", "models", "pull", "smollm2-135m-instruct", "--from", str(tmp_path))

    assert answer.returncode == 2
    assert "is truncated: 33 bytes instead of 98,362,432" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_ctrl_c_during_a_pull_says_how_to_go_on(tmp_path: Path) -> None:
    # An index that never answers: a socket that accepts and is silent.
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        process = subprocess.Popen(
            [sys.executable, "-m", "watchkeeper.cli", "models", "pull", "smollm2-135m-instruct"],
            env={
                **os.environ,
                "WATCHKEEPER_HOME": str(tmp_path),
                "HF_HUB_OFFLINE": "1",
                "PIP_INDEX_URL": url,
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_FIND_LINKS": "",
                "no_proxy": "127.0.0.1",
            },
            stderr=subprocess.PIPE,
            text=True,
            # A test run in the background of a shell inherits a Ctrl-C that is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no threads)
        )
        silent.settimeout(30)
        connection, _ = silent.accept()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=30)
        connection.close()

    assert process.returncode == 130
    assert "watchkeeper models pull smollm2-135m-instruct' continues" in complaint
    assert "Traceback" not in complaint
