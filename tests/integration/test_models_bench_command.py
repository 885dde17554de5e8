"""``watchkeeper models bench`` on a real, tiny model of the user's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from watchkeeper.models.bench_report import Report

SMALL_BUFFER = "import watchkeeper.models.bandwidth as bandwidth; bandwidth.BUFFER = 1 << 24"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    hosted = tiny.hosted()
    hosted.model.save_pretrained(folder)
    hosted.tokenizer.save_pretrained(folder)
    return folder


def command(*arguments: object, before: str = SMALL_BUFFER) -> list[str]:
    script = f"import sys; {before}\nfrom watchkeeper.cli import main; main()"
    return [sys.executable, "-c", script, "models", "bench", *map(str, arguments)]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "WATCHKEEPER_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def run(home: Path, *arguments: object, before: str = SMALL_BUFFER) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, before=before),
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_a_model_is_measured_and_drawn(tmp_path: Path, model: Path) -> None:
    plots = tmp_path / "new" / "plots"

    answer = run(tmp_path, model, "--quick", "--threads", 1, "--plots", plots, "--json")

    assert answer.returncode == 0, answer.stderr
    assert sorted(path.name for path in plots.iterdir()) == ["decode.png", "prefill.png", "tool-calls.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots.iterdir())
    report = Report.model_validate_json(answer.stdout)
    assert (report.model, report.quantization, report.machine.threads) == (str(model), "int8", 1)
    assert [row.requests for row in report.decode] == [1, 4]
    assert report.bound.bandwidth is not None
    assert report.validity.valid == report.validity.asked == 5
    assert "bench: validity: 100 %" in answer.stderr
    assert not (tmp_path / "models").exists()


def test_plots_that_cannot_be_written_cost_no_figures(tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").touch()

    answer = run(tmp_path, model, "--quick", "--plots", tmp_path / "file" / "plots")

    assert answer.returncode == 2
    assert "gain of prefix reuse" in answer.stdout
    assert answer.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/file/plots/decode.png cannot be")


def test_without_matplotlib_the_extra_is_named_before_any_work(tmp_path: Path, model: Path) -> None:
    without = "sys.modules['matplotlib'] = None"

    answer = run(tmp_path, model, "--plots", tmp_path / "plots", before=without)

    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert "pip install 'watchkeeper[plots]'" in answer.stderr
    assert "leaving out --plots" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no-such-model",), "no model 'no-such-model' in the catalog"),
        (("smollm2-135m-instruct",), "'smollm2-135m-instruct' is not on this machine"),
        (("MODEL", "--plots", "MODEL/config.json"), "config.json is no folder"),
        (("MODEL", "--quantization", "int3"), "no quantization 'int3'"),
        (("MODEL", "--threads", "0"), "--threads"),
        (("MODEL", "--repeat", "0"), "--repeat"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    tmp_path: Path, model: Path, arguments: tuple[str, ...], said: str
) -> None:
    placed = [part.replace("MODEL", str(model)) for part in arguments]

    answer = run(tmp_path, *placed)

    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert answer.stderr.startswith("error: ")
    assert said in answer.stderr


def test_ctrl_c_ends_it_in_one_line_and_leaves_nothing(tmp_path: Path, model: Path) -> None:
    plots = tmp_path / "plots"
    process = subprocess.Popen(
        command(model, "--repeat", 10_000, "--plots", plots),
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell inherits a Ctrl-C that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no threads)
    )
    assert process.stderr is not None
    # Not the readline of an iteration: it would read ahead of what communicate() returns.
    while "bench: prefill" not in (line := process.stderr.readline()):
        assert line, "it ended before it measured"
    process.send_signal(signal.SIGINT)
    shown, complaint = process.communicate(timeout=60)

    assert (process.returncode, shown) == (130, "")
    assert complaint.splitlines()[-1] == "error: stopped; nothing was kept"
    assert "Traceback" not in complaint
    assert not plots.exists()


def test_help_names_the_options(tmp_path: Path) -> None:
    answer = run(tmp_path, "--help", before="")

    assert answer.returncode == 0
    for option in ("--quantization", "--threads", "--repeat", "--quick", "--plots", "--json"):
        assert option in answer.stdout
