"""People are told by real webhooks and real mail, once for each call, whenever processes are killed."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.calls import ask, jobs_of
from tests.clocks import START, FakeClock
from tests.killing import killed_at
from tests.lamp import folder_in_memory
from watchkeeper.runtime import escalation_jobs, notify_apprise, outbox
from watchkeeper.runtime.errors import DeliveryUnknownError, NotSentError
from watchkeeper.runtime.escalation_rules import EscalationRules
from watchkeeper.runtime.escalation_states import EscalationStatus
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.notify import NOTIFICATIONS, Message
from watchkeeper.runtime.notify_apprise import AppriseSink
from watchkeeper.runtime.outbox import NotificationStatus

# Apprise looks for a module that newer versions of Python do not have.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
ROOT = Path(__file__).parents[2]
PASSWORD = "s3cr3t-of-the-hook"
MESSAGE = Message(
    id="ESC-7K3QW-1-1", recipient="alice", channel="hook", title="APR-1 waits", text="all of it", at=START
)
RULES = EscalationRules.model_validate(
    {
        "people": {"alice": {"channels": ["hook", "file"]}, "bob": {"channels": ["hook"]}},
        "channels": {"hook": {"kind": "apprise", "secret": "TEST_HOOK"}},
        "policies": {
            "p": {
                "levels": [
                    {"who": {"users": ["alice"]}, "wait": "5m"},
                    {"who": {"users": ["bob"]}, "wait": "5m"},
                ]
            }
        },
        "default": "p",
    }
)


class Hook:
    """A webhook that keeps what it is given."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, str]] = []
        self.status = 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.bodies.append(body)
                if hook.status == 0:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(hook.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"json://user:{PASSWORD}@127.0.0.1:{self.server.server_port}/hook"

    def delivered(self) -> Counter[str]:
        """How often each notification came."""
        return Counter(body["title"].partition("]")[0].lstrip("[") for body in self.bodies)


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    found = Hook()
    monkeypatch.setenv("TEST_HOOK", found.address)
    with serving(found.server):
        yield found


def test_a_webhook_is_given_the_message_with_its_id(hook: Hook, tmp_path: Path) -> None:
    AppriseSink("TEST_HOOK", tmp_path).send(MESSAGE)
    (body,) = hook.bodies
    assert (body["title"], body["message"]) == ("[ESC-7K3QW-1-1] APR-1 waits", "all of it")


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (404, NotSentError, "the server answered 404"),
        (429, NotSentError, "the server answered 429"),
        (503, NotSentError, "the server answered 503"),
        (500, DeliveryUnknownError, "the server answered 500"),
        (504, DeliveryUnknownError, "the server answered 504"),
        (0, DeliveryUnknownError, "the connection broke"),
    ],
)
def test_a_message_that_was_not_taken_is_told_from_one_that_may_have_been(
    hook: Hook,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    status: int,
    error: type[Exception],
    said: str,
) -> None:
    hook.status = status
    caplog.set_level(logging.DEBUG)
    with pytest.raises(error, match=said) as raised:
        AppriseSink("TEST_HOOK", tmp_path).send(MESSAGE)
    assert len(hook.bodies) == 1
    for text in (str(raised.value), repr(raised.value.__cause__), caplog.text):
        assert PASSWORD not in text


def test_an_address_that_nobody_listens_at_was_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("TEST_HOOK", f"json://user:{PASSWORD}@127.0.0.1:{free.getsockname()[1]}/")
        with pytest.raises(NotSentError, match="no connection to the server was made"):
            AppriseSink("TEST_HOOK", tmp_path).send(MESSAGE)


def test_an_address_is_read_from_a_file_that_only_its_owner_can_read(
    hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_HOOK")
    with pytest.raises(NotSentError, match="secret 'TEST_HOOK' is not there"):
        AppriseSink("TEST_HOOK", tmp_path).send(MESSAGE)
    path = tmp_path / "secrets" / "TEST_HOOK"
    path.parent.mkdir()
    path.write_text(hook.address + "\n")
    path.chmod(0o644)
    with pytest.raises(NotSentError, match="can be read by others: chmod 600 it"):
        AppriseSink("TEST_HOOK", tmp_path).send(MESSAGE)
    path.chmod(0o600)
    AppriseSink("TEST_HOOK", tmp_path).send(MESSAGE)
    assert len(hook.bodies) == 1
    path.write_text(f"nothing://{PASSWORD}")
    with pytest.raises(NotSentError, match="does not hold an address that Apprise knows") as raised:
        AppriseSink("TEST_HOOK", tmp_path).send(MESSAGE)
    assert PASSWORD not in str(raised.value)


class MailHandler(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as takes a mail, or refuses it."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, MailServer)
        self.say("220 here")
        lines = iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), "")
        for line in lines:
            verb = line.split(" ")[0].upper()
            if verb == "RCPT" and server.refuses:
                self.say("550 nobody of that name")
            elif verb == "DATA":
                self.say("354 go on")
                text = []
                while (part := self.rfile.readline().decode()) not in {".\r\n", ""}:
                    text.append(part)
                server.mails.append("".join(text))
                self.say("250 taken")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 yes")

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


class MailServer(socketserver.ThreadingTCPServer):
    """A mail server."""

    daemon_threads = True

    def __init__(self, *, refuses: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), MailHandler)
        self.refuses = refuses
        self.mails: list[str] = []


@pytest.mark.parametrize("refuses", [False, True])
def test_mail_is_sent_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: bool) -> None:
    server = MailServer(refuses=refuses)
    port = server.server_address[1]
    address = f"mailto://127.0.0.1:{port}/?from=watch@example.org&to=alice@example.org&mode=insecure"
    monkeypatch.setenv("TEST_MAIL", address)
    with serving(server):
        sink = AppriseSink("TEST_MAIL", tmp_path)
        if refuses:
            with pytest.raises(NotSentError, match="the mail server answered 550"):
                sink.send(MESSAGE)
            assert server.mails == []
            return
        sink.send(MESSAGE)
    (mail,) = server.mails
    assert "ESC-7K3QW-1-1" in mail
    assert "all of it" in mail


# -- processes that are killed ----------------------------------------------------------------------------

_TRACED = frozenset(str(module.__file__) for module in (escalation_jobs, notify_apprise, outbox))


def _trial(hook: Hook, home: Path, line: int) -> bool:
    """Kill a process that tells people at a line of what surrounds that; then let others go on."""
    clock = FakeClock()
    with Journal(home, now=clock) as journal:
        _, escalation = ask(journal, RULES)
        assert PASSWORD not in journal.escalations.get(escalation.id).model_dump_json()

    def work() -> None:
        with Journal(home, now=clock) as journal:
            jobs_of(journal).work_off("first")

    before = len(hook.bodies)
    died = killed_at(line, _TRACED, work)
    with Journal(home, now=clock) as journal:
        for _ in range(12):
            jobs_of(journal).work_off("second")
            clock.forward(minutes=1)
        assert journal.escalations.get(escalation.id).status is EscalationStatus.SILENT
        told = journal.escalations.outbox.list(escalation.id)
    came = Counter(body["title"].partition("]")[0].lstrip("[") for body in hook.bodies[before:])
    lines = (home / NOTIFICATIONS).read_text().splitlines()
    written = Counter(json.loads(text)["id"] for text in lines)
    for one in told:
        times = came[one.id] if one.channel == "hook" else written[one.id]
        if one.status is NotificationStatus.SENT:
            assert times == 1, f"killed at line {line}: {one.id} came {times} times"
        else:
            assert one.status is NotificationStatus.UNKNOWN, f"killed at line {line}: {one}"
            assert times <= 1
            assert one.channel == "hook"
    assert sorted((one.step, one.recipient, one.channel) for one in told) == [
        (1, "alice", "file"),
        (1, "alice", "hook"),
        (2, "bob", "hook"),
    ]
    return died


def test_nobody_is_told_twice_and_nobody_is_forgotten_whenever_a_process_is_killed(hook: Hook) -> None:
    lines = random.Random(5).sample(range(1, 150), 12)
    died = 0
    for line in lines:
        with folder_in_memory() as folder:
            died += _trial(hook, folder / "home", line)
    assert died > 6


@pytest.mark.crash
def test_nobody_is_told_twice_wherever_a_process_is_killed(hook: Hook) -> None:
    line, died = 0, True
    while died:
        line += 1
        with folder_in_memory() as folder:
            died = _trial(hook, folder / "home", line)
    assert line > 80


_WAITING = """
import sys, time
from pathlib import Path
from tests.calls import RULES, ask, jobs_of
from watchkeeper.runtime.escalation_rules import EscalationRules
from watchkeeper.runtime.journal import Journal

text = RULES.model_dump_json().replace('"5m"', '"4s"')
with Journal(Path(sys.argv[1])) as journal:
    known = journal.escalations.list()
    now = known[0] if known else ask(journal, EscalationRules.model_validate_json(text))[1]
    print(now.due_at.isoformat(), flush=True)
    while now.step == 1:
        jobs_of(journal).work_off("w")
        now = journal.escalations.get(now.id)
        time.sleep(0.05)
"""


def test_a_deadline_comes_at_its_time_after_the_process_that_set_it_was_killed(tmp_path: Path) -> None:
    home = tmp_path / "home"

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _WAITING, str(home)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])},
        )

    with start() as first:
        assert first.stdout is not None
        due = datetime.fromisoformat(first.stdout.readline().strip())
        first.send_signal(signal.SIGKILL)
        first.wait(timeout=60)
    with start() as second:
        assert second.stdout is not None
        assert datetime.fromisoformat(second.stdout.readline().strip()) == due
        assert second.wait(timeout=60) == 0
    with Journal(home) as journal:
        (now,) = journal.escalations.list()
        (event,) = [
            e for e in journal.incidents.events(now.incident_id) if e.kind == "level-reached" and e.step == 2
        ]
        assert due <= event.at < due + timedelta(seconds=45)
