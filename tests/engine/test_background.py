"""Work in a thread that ends comes back, fails, and is waited for also where the caller is interrupted."""

import subprocess
import sys
import threading

import pytest

from watchkeeper.models.background import in_a_thread_that_ends

INTERRUPTED = """
import os, signal, sys, threading, time, torch
from watchkeeper.models.background import in_a_thread_that_ends

def work():
    began, rows = time.monotonic(), torch.ones(300, 300)
    while time.monotonic() - began < 1:
        rows = (rows @ rows).clamp(0, 1)

# Where tests run in a shell's background, the signal is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    in_a_thread_that_ends(work)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_what_work_returns_and_raises_comes_back() -> None:
    assert in_a_thread_that_ends(threading.current_thread) is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        in_a_thread_that_ends(lambda: 1 // 0)


def test_an_interrupted_caller_ends_as_usual() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (130, "")
