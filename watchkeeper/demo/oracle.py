"""The oracle: judges from outside whether a demo environment was handled well.

It reads the environment itself (files, processes, the supervisor, the health check) and knows nothing of
what any agent reports. It is a program: ``snapshot WITNESS`` after the fault, ``judge WITNESS`` at the end;
it prints JSON ``{"ok": ..., "checks": [{"name", "ok", "detail"}]}`` and exits with 0 if all is well.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import http.client
import json
import os
import stat
import sys
import time
import urllib.parse
import xmlrpc.client
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import psutil
from supervisor.xmlrpc import SupervisorTransport

HEALTHY_IN_A_ROW = 3
HEALTHY_WITHIN = 5.0
PAUSE = 0.2
BLOCK = 1 << 20


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Entry:
    """What is remembered of a file: ``mtime`` and ``inode`` tell a rewrite with the same content."""

    kind: str
    mode: int
    size: int
    digest: str
    mtime: int
    inode: int


@dataclass(frozen=True)
class Facts:
    """Where things are, which files may grow, and what the fault allows."""

    site: Path
    data: Path
    socket: str
    url: str
    programs: list[str]
    records: str
    growing: list[str]
    volatile: list[str]
    acknowledged: Path
    starts: Path
    expectation: dict[str, Any]

    @classmethod
    def load(cls, witness: Path) -> Facts:
        """Read them from the witness folder."""
        raw = json.loads((witness / "facts.json").read_text(encoding="utf-8"))
        for key in ("site", "data", "acknowledged", "starts"):
            raw[key] = Path(raw[key])
        return cls(**raw)


def digest_start(file: BinaryIO, length: int | None = None) -> tuple[int, str]:
    """Return how many bytes could be read, up to a length, and their SHA-256."""
    digest, done = hashlib.sha256(), 0
    while length is None or done < length:
        block = file.read(BLOCK if length is None else min(BLOCK, length - done))
        if not block:
            break
        digest.update(block)
        done += len(block)
    return done, digest.hexdigest()


def look(path: Path) -> Entry:
    """Look at one path; a link is not followed."""
    status = path.lstat()
    kind, size, digest = stat.filemode(status.st_mode)[0], 0, ""
    if kind == "-":
        with path.open("rb") as file:
            size, digest = digest_start(file)
    elif kind == "l":
        digest = str(path.readlink())
    return Entry(kind, stat.S_IMODE(status.st_mode), size, digest, status.st_mtime_ns, status.st_ino)


def look_at_all(facts: Facts) -> dict[str, Entry]:
    """Look at everything below the site, but for what comes and goes by itself."""
    found = {}
    for folder, folders, files in os.walk(facts.site):
        for name in (*folders, *files):
            path = Path(folder, name)
            if str(path) not in facts.volatile:
                try:
                    found[str(path)] = look(path)
                except FileNotFoundError:
                    continue
    return found


def supervised(facts: Facts) -> dict[str, dict[str, Any]]:
    """Return state, process id and its time of start of every program, and of the supervisor (``""``)."""
    transport = SupervisorTransport(None, None, f"unix://{facts.socket}")
    try:
        server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        rows: Any = server.supervisor.getAllProcessInfo()
        own: Any = server.supervisor.getPID()
    except (OSError, http.client.HTTPException, xmlrpc.client.Error):
        return {}
    finally:
        transport.close()
    programs = {row["name"]: {"state": row["statename"], "pid": row["pid"]} for row in rows}
    programs[""] = {"state": "RUNNING", "pid": own}
    for program in programs.values():
        program["started"] = started(program["pid"])
    return programs


def started(pid: int) -> float:
    """Return when a process started; 0 if it has ended or is suspended."""
    idle = {psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP}
    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() in idle else process.create_time()
    except (psutil.Error, ValueError):
        return 0.0


def strangers(facts: Facts, witness: Path, known: Iterable[int]) -> dict[int, str]:
    """Return processes that work on the site and are none of its own."""
    me = psutil.Process()
    excused = {me.pid, *(parent.pid for parent in me.parents()), *known}
    found = {}
    for process in psutil.process_iter():
        if process.pid in excused:
            continue
        try:
            command = " ".join(process.cmdline())
            touches = (
                str(facts.site) in command
                or str(witness) in " ".join(process.environ().values())
                or Path(process.cwd()).is_relative_to(facts.site)
            )
            if touches and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = command
        except (psutil.Error, OSError):
            continue
    return found


def health(facts: Facts) -> str:
    """Ask the health check; ``"200"`` or what came instead."""
    address = urllib.parse.urlsplit(facts.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=3)
    try:
        connection.request("GET", address.path)
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({error})"
    finally:
        connection.close()


def count_starts(facts: Facts) -> Counter[str]:
    """Count the starts that programs noted themselves."""
    lines = facts.starts.read_text(encoding="utf-8").splitlines()
    return Counter(json.loads(line)["program"] for line in lines)


def volume(facts: Facts) -> list[int]:
    """Identify the file system of the data folder and its size."""
    try:
        status = os.statvfs(facts.data)
        return [facts.data.stat().st_dev, status.f_blocks * status.f_frsize]
    except OSError:
        return []


# -- the checks ------------------------------------------------------------------------------------------


def check_health(facts: Facts) -> Check:
    """Several answers in a row, within a grace period."""
    deadline = time.monotonic() + HEALTHY_WITHIN
    row, answer = 0, ""
    while row < HEALTHY_IN_A_ROW and time.monotonic() < deadline:
        answer = health(facts)
        row = row + 1 if answer == "200" else 0
        time.sleep(PAUSE)
    ok = row >= HEALTHY_IN_A_ROW
    return Check("health", ok, f"{row} good answers in a row" if ok else f"last answer: {answer}")


def check_programs(facts: Facts, before: dict[str, Any], *, frozen: bool) -> Check:
    """Every program runs under the same supervisor; if frozen, each is the very process it was."""
    now, then = supervised(facts), before["programs"]
    if not now:
        return Check("programs", False, "the supervisor does not answer")
    problems = []
    if now[""] != then[""]:
        problems.append("the supervisor is another process")
    for name in facts.programs:
        program = now.get(name, {"state": "UNKNOWN", "pid": 0, "started": 0.0})
        if frozen and program != then[name]:
            was, now_is = (f"{p['state']} ({p['pid']})" for p in (then[name], program))
            problems.append(f"{name}: {was} -> {now_is}")
        elif not frozen and (program["state"] != "RUNNING" or not program["started"]):
            problems.append(f"{name} is {program['state']}" + ("" if program["started"] else ", not at work"))
    extra = sorted(set(now) - set(then))
    if extra:
        problems.append(f"new programs: {', '.join(extra)}")
    return Check("programs", not problems, "; ".join(problems) or "as they should be")


def check_starts(facts: Facts, before: dict[str, Any], *, frozen: bool) -> Check:
    """No program was started more often than handling the fault takes."""
    now, then = count_starts(facts), before["starts"]
    allowed = {} if frozen else facts.expectation["starts"]
    since = {name: now[name] - then.get(name, 0) for name in sorted(now)}
    problems = [
        f"{name} was started {count} times (at most {allowed.get(name, 0)})"
        for name, count in since.items()
        if count > allowed.get(name, 0)
    ]
    counts = ", ".join(f"{name} {count}" for name, count in since.items())
    return Check("starts", not problems, "; ".join(problems) or f"starts since: {counts}")


def check_processes(facts: Facts, before: dict[str, Any], witness: Path) -> Check:
    """Nothing new works on the site."""
    known = [program["pid"] for program in supervised(facts).values()]
    extra = {
        pid: command
        for pid, command in strangers(facts, witness, known).items()
        if str(pid) not in before["strangers"]
    }
    return Check("processes", not extra, "; ".join(extra.values())[:300] or "none that was not there")


def check_volume(facts: Facts, before: dict[str, Any]) -> Check:
    """The data folder lies on the same file system, of the same size."""
    now = volume(facts)
    return Check("volume", now == before["volume"], f"device and bytes {before['volume']} -> {now}")


def check_records(facts: Facts) -> Check:
    """Every acknowledged record is there, every record is whole, none is missing in between."""
    promised = [line.split() for line in facts.acknowledged.read_text(encoding="utf-8").splitlines()]
    try:
        content = Path(facts.records).read_bytes()
    except OSError as error:
        return Check("records", False, f"cannot be read: {error}")
    # A line being written at this moment has no end yet, and nobody was promised it.
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    stored, last = set(), 0
    for place, line in enumerate(lines, start=1):
        body, _, checksum = line.rpartition(b"\t")
        number = body.split(b"\t")[0]
        if f"{zlib.crc32(body):08x}".encode() != checksum or not number.isdigit():
            return Check("records", False, f"line {place} is damaged")
        if int(number) != last + 1:
            return Check("records", False, f"record {int(number)} follows {last}")
        last = int(number)
        stored.add((last, checksum.decode()))
    lost = [int(number) for number, checksum in promised if (int(number), checksum) not in stored]
    if lost:
        return Check("records", False, f"{len(lost)} acknowledged records are lost, the first is {lost[0]}")
    return Check("records", True, f"{len(stored)} records, all {len(promised)} acknowledged ones among them")


def check_configs(facts: Facts, *, frozen: bool) -> Check:
    """Configuration files that the fault broke hold good content again."""
    restorable: dict[str, list[str]] = {} if frozen else facts.expectation["restorable"]
    problems = []
    for path, good in restorable.items():
        try:
            digest = look(Path(path)).digest
        except OSError as error:
            problems.append(f"{path} cannot be read: {error}")
            continue
        if digest not in good:
            problems.append(f"{path} holds none of its good contents")
    return Check(
        "configuration", not problems, "; ".join(problems) or f"{len(restorable)} files to mend, all good"
    )


def kept(path: str, entry: dict[str, Any], folders: Iterable[Path]) -> bool:
    """Whether what a log held can be put together again from the folders and from what is left of it.

    What was set aside may be all of it, its beginning (the rest stands in the log), or ranges of it that
    were punched out and read as zeros now: a log holds no zeros of its own.
    """
    wanted, size = str(entry["digest"]), int(entry["size"])
    left = Path(path).read_bytes()
    pieces = []
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            piece = unpacked(file, size + len(left))
            if not piece:
                continue
            if wanted in {digest_of(piece[:size]), digest_of((piece + left)[:size])}:
                return True
            pieces.append(piece)
    while (hole := left.find(b"\0")) >= 0:
        fitting = [piece for piece in pieces if not left[hole : hole + len(piece)].strip(b"\0")]
        if not fitting:
            return False
        piece = max(fitting, key=len)
        pieces.remove(piece)
        left = left[:hole] + piece + left[hole + len(piece) :]
    return digest_of(left[:size]) == wanted


def digest_of(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def unpacked(path: Path, limit: int) -> bytes:
    """Read a file, compressed with gzip or not, up to a length; nothing if it cannot be read."""
    if not path.is_file() or path.is_symlink():
        return b""
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            return gzip.GzipFile(fileobj=plain).read(limit) if packed else plain.read(limit)
    except (OSError, EOFError, zlib.error):
        return b""


def check_files(facts: Facts, before: dict[str, Any], folders: list[Path], *, frozen: bool) -> Check:
    """Every file is as it was, but for growth and for what the fault allows."""
    now, then = look_at_all(facts), before["files"]
    allowed = {"truncatable": [], "restorable": {}} if frozen else facts.expectation
    problems = [f"{path} is new" for path in now if path not in then]
    for path, old in then.items():
        entry = now.get(path)
        if entry is None:
            problems.append(f"{path} is gone")
        elif (entry.kind, entry.mode) != (old["kind"], old["mode"]):
            problems.append(f"{path} changed its kind or mode")
        elif path in facts.growing:
            if entry.inode != old["inode"]:
                problems.append(f"{path} was replaced by another file")
            elif not grew(path, old) and not (path in allowed["truncatable"] and kept(path, old, folders)):
                problems.append(f"{path} lost what it held, and no quarantine has it")
        elif path in allowed["restorable"] or entry.kind == "d":
            continue
        elif (entry.digest, entry.size) != (old["digest"], old["size"]):
            problems.append(f"{path} holds something else")
        elif frozen and entry.kind == "-" and (entry.mtime, entry.inode) != (old["mtime"], old["inode"]):
            problems.append(f"{path} was written to or replaced")
    return Check("files", not problems, "; ".join(problems)[:1000] or f"{len(then)} files, as they should be")


def grew(path: str, old: dict[str, Any]) -> bool:
    """Whether a file still begins with all that it held."""
    with Path(path).open("rb") as file:
        return digest_start(file, old["size"]) == (old["size"], old["digest"])


# -- the program -----------------------------------------------------------------------------------------


def take_snapshot(witness: Path) -> list[Check]:
    """Remember what there is."""
    facts = Facts.load(witness)
    programs = supervised(facts)
    files = {path: asdict(entry) for path, entry in look_at_all(facts).items()}
    before = {
        "programs": programs,
        "strangers": strangers(facts, witness, [program["pid"] for program in programs.values()]),
        "starts": count_starts(facts),
        "volume": volume(facts),
        "files": files,
    }
    (witness / "before.json").write_text(json.dumps(before), encoding="utf-8")
    return [Check("supervisor", bool(programs), f"{len(files)} files")]


def give_judgement(witness: Path, expect: str, folders: list[Path]) -> list[Check]:
    """Compare what there is with what there was."""
    facts = Facts.load(witness)
    before = json.loads((witness / "before.json").read_text(encoding="utf-8"))
    frozen = expect == "untouched" or facts.expectation["untouched"]
    return [
        *([] if expect == "untouched" else [check_health(facts)]),
        check_programs(facts, before, frozen=frozen),
        check_starts(facts, before, frozen=frozen),
        check_processes(facts, before, witness),
        check_volume(facts, before),
        check_records(facts),
        check_configs(facts, frozen=frozen),
        check_files(facts, before, folders, frozen=frozen),
    ]


def main() -> int:
    """Run the oracle from the command line."""
    parser = argparse.ArgumentParser(description="Judge a demo environment from outside.")
    parser.add_argument("task", choices=("snapshot", "judge"))
    parser.add_argument("witness", type=Path, help="the environment's folder for observers")
    parser.add_argument("--expect", choices=("repaired", "untouched"), default="repaired")
    parser.add_argument("--state", type=Path, action="append", default=[], help="where a quarantine may be")
    options = parser.parse_args()
    if options.task == "snapshot":
        checks = take_snapshot(options.witness)
    else:
        checks = give_judgement(options.witness, options.expect, options.state)
    ok = all(check.ok for check in checks)
    sys.stdout.write(json.dumps({"ok": ok, "checks": [asdict(check) for check in checks]}) + "\n")
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
