"""How long the command line takes to answer when it is asked for help.

python benchmarks/command_line.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 10


def main() -> None:
    """Time ``watchkeeper --help`` and print one line a command."""
    for arguments in (["--help"], ["run", "--help"], ["--version"]):
        seconds = sorted(_time([sys.executable, "-m", "watchkeeper.cli", *arguments]) for _ in range(RUNS))
        name = " ".join(["watchkeeper", *arguments])
        print(f"{name}: median {statistics.median(seconds):.2f} s, least {seconds[0]:.2f} s of {RUNS} runs")


def _time(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
