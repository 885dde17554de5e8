"""A worker that is interrupted or asked to end gives back what it does, at once, and another goes on."""

from __future__ import annotations

import http.server
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from watchkeeper.cli.output import INTERRUPTED
from watchkeeper.runtime.incident_jobs import run_key
from watchkeeper.runtime.jobs import Jobs, JobStatus
from watchkeeper.runtime.journal import Journal

INVENTORY = "hosts: [{name: web-1, labels: {environment: test}}]\n"
ALERT = "title: web-1 is down\nhost: web-1\ncondition: {kind: http, url: 'http://127.0.0.1:9/'}\n"
SECONDS = 20.0
"""Within which a worker ends: long before anything that it waits for would; a busy machine takes its time."""


class Mute:
    """A model's endpoint that takes questions and does not answer them."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.over = threading.Event()
        self.url = ""

    @contextmanager
    def listening(self) -> Iterator[Mute]:
        mute = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                body = json.dumps({"object": "list", "data": [{"id": "none", "object": "model"}]}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                mute.asked.release()
                mute.over.wait(120)

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}/v1#none"
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield self
            finally:
                self.over.set()
                server.shutdown()
                thread.join()


@pytest.fixture
def mute() -> Iterator[Mute]:
    with Mute().listening() as listening:
        yield listening


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path))
    (tmp_path / "inventory.yaml").write_text(INVENTORY)
    (tmp_path / "alert.yaml").write_text(ALERT)
    return tmp_path


@contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    line = [sys.executable, "-m", "watchkeeper.cli", *arguments]
    with subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What is started in the background of a shell ignores it, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no threads)
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_worker_ends_at_once_and_the_next_one_goes_on(home: Path, mute: Mute) -> None:
    with command("submit", str(home / "alert.yaml")) as submitting:
        incident = submitting.communicate(timeout=60)[0].strip()
    for number, code in ((signal.SIGINT, INTERRUPTED), (signal.SIGTERM, 0)):
        with command("serve", "--model", mute.url) as worker:
            assert mute.asked.acquire(timeout=90), "no question came"
            sent = time.monotonic()
            worker.send_signal(number)
            told = worker.communicate(timeout=60)[1]
            took = time.monotonic() - sent
        assert worker.returncode == code, told
        assert "what was under way goes on where a worker is" in told
        assert "Traceback" not in told
        assert took < SECONDS
        with Journal(home) as journal:
            job = Jobs(journal.store).find(run_key(incident))
            assert job is not None
            assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)
            assert not journal.incidents.get(incident).status.ended
            with journal.incidents.lock(incident) as lease:
                assert lease.name == f"incident:{incident}"
    # The second worker asked because it went on with what the first one gave back.
    with Journal(home) as journal:
        kinds = [event.kind for event in journal.incidents.events(incident)]
        assert kinds.count("incident-opened") == 1
        assert journal.audit.verify().ok


def test_a_worker_that_waits_for_work_ends_at_once(home: Path, mute: Mute) -> None:
    with command("serve", "--model", mute.url) as worker:
        assert worker.stderr is not None
        while "works on what is submitted" not in worker.stderr.readline():
            assert worker.poll() is None
        sent = time.monotonic()
        worker.send_signal(signal.SIGINT)
        worker.communicate(timeout=60)
        took = time.monotonic() - sent
    assert (worker.returncode, took < SECONDS) == (INTERRUPTED, True), took
