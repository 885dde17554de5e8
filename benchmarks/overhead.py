"""What the store, the journal and the audit log cost beside a bare LangGraph graph.

python benchmarks/overhead.py [--rounds 5] [--incidents 10000]

In one run, and in turns, so that whatever else the machine does hits all of them: a bare graph that makes
the updates of an incident that changes nothing, with LangGraph's own SQLite checkpointer at
``durability="sync"``, against the same graph over our store, and against the incident itself, whose steps
also write what happened and why into the store and the signed audit log; the commits of one effect; and an
incident in a store with many others. A step is timed from one checkpoint to the next.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent.parent))

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from sqlalchemy import Engine, event

from tests.lamp import ALERT, ALLOW, Lamp, orchestrator, prefers
from watchkeeper.runtime import schema
from watchkeeper.runtime.changes import Changes
from watchkeeper.runtime.checkpoints import Checkpoints
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.state import IncidentState
from watchkeeper.runtime.store import Store

RESULTS = Path(__file__).parent / "results" / "overhead.json"


def incident(folder: Path, home: Path, **parts: str) -> tuple[float, float, str]:
    """Handle an incident of a lamp whose parts are like this.

    Returns:
        Seconds in all, seconds from the first checkpoint to the last, and how it ended.
    """
    folder.mkdir()
    lamp = Lamp.dark(folder, **parts)
    with orchestrator(home, lamp, prefers("switch"), rules=ALLOW) as o:
        opened = o.open(ALERT)
        began = time.perf_counter()
        with steps(Checkpoints) as times:
            for _ in o.resume(opened.id):
                pass
        seconds = time.perf_counter() - began
        return seconds, times[-1] - times[0], o.journal.incidents.get(opened.id).status.value


def recorded(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Handle an incident that changes nothing, and keep what each of its nodes returned."""
    from watchkeeper.runtime import graph

    updates: list[tuple[str, dict[str, Any]]] = []
    whole = StateGraph.add_node

    def add_node(self: Any, name: str, node: Any, **options: Any) -> Any:
        def keeping(state: Any) -> Any:
            update = node(state)
            updates.append((name, update))
            return update

        return whole(self, name, keeping, **options)

    with patch.object(graph.StateGraph, "add_node", add_node):
        incident(folder, folder / "home", power="cut")
    return updates


def bare(folder: Path, updates: list[tuple[str, dict[str, Any]]], *, ours: bool) -> float:
    """Run a graph that makes the same updates, one after the other; returns seconds a step."""
    folder.mkdir()
    graph = StateGraph(IncidentState)
    names = [f"{number}-{name}" for number, (name, _) in enumerate(updates)]
    for name, (_, update) in zip(names, updates, strict=True):
        graph.add_node(name, lambda _, update=update: update)
    for before, after in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(before, after)
    config: Any = {"configurable": {"thread_id": "one"}, "recursion_limit": 500}
    with ExitStack() as stack:
        saver: BaseCheckpointSaver[Any]
        if ours:
            saver = Checkpoints(stack.enter_context(Store(folder / "ours.db")), deferred=True)
        else:
            connection = sqlite3.connect(folder / "bare.db", check_same_thread=False)
            stack.callback(connection.close)
            connection.execute("PRAGMA synchronous=FULL")
            saver = SqliteSaver(connection)
        compiled = graph.compile(checkpointer=saver)
        with steps(type(saver)) as times:
            for _ in compiled.stream({"incident": "one"}, config, stream_mode="values", durability="sync"):
                pass
    return (times[-1] - times[0]) / len(updates)


@contextmanager
def steps(saver: type[Any]) -> Iterator[list[float]]:
    """Note when each checkpoint is kept."""
    times: list[float] = []
    whole = saver.put

    def put(self: Any, *given: Any) -> Any:
        kept = whole(self, *given)
        times.append(time.perf_counter())
        return kept

    with patch.object(saver, "put", put):
        yield times


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count commits of the store that wrote something, and syncs of files."""
    counts: Counter[str] = Counter()
    sync = os.fsync

    def commit(connection: Any) -> None:
        begun = connection.get_execution_options().get("begin", "BEGIN IMMEDIATE")
        counts["commits"] += begun == "BEGIN IMMEDIATE"

    def fsync(descriptor: int) -> None:
        counts["syncs"] += 1
        sync(descriptor)

    event.listen(Engine, "commit", commit)
    try:
        with patch("os.fsync", fsync):
            yield counts
    finally:
        event.remove(Engine, "commit", commit)


def effect(folder: Path) -> dict[str, int]:
    """Count what one effect writes, from before its intent until its outcome is kept."""
    found: list[Counter[str]] = []
    whole = Changes.apply

    def apply(self: Changes, *given: Any) -> Any:
        with counted() as counts:
            applied = whole(self, *given)
        found.append(counts)
        return applied

    with patch.object(Changes, "apply", apply):
        incident(folder, folder / "home", switch="off")
    return dict(found[0])


def fill(home: Path, many: int) -> None:
    """Put incidents that ended into a store, each with events, a step, an effect and an approval."""
    with Journal(home) as journal:
        start = datetime.now(UTC) - timedelta(days=300)
        alert = ALERT.model_dump_json()
        rows: dict[Any, list[dict[str, Any]]] = {
            table: [] for table in (schema.incidents, schema.events, schema.steps, schema.effects)
        }
        for number in range(many):
            name, at = f"INC-{number:06d}", start + timedelta(minutes=30 * number * 10_000 / many)
            rows[schema.incidents].append(
                {
                    "id": name,
                    "fingerprint": f"{number % 500}",
                    "status": "resolved",
                    "severity": "critical",
                    "alert": alert,
                    "alert_count": 1,
                    "opened_at": at,
                    "updated_at": at,
                    "ended_at": at,
                    "summary": "",
                }
            )
            for seq in range(1, 41):
                body = {"kind": "stage-entered", "stage": "report", "incident_id": name, "seq": seq}
                rows[schema.events].append(
                    {
                        "incident_id": name,
                        "seq": seq,
                        "call_key": f"k{seq}",
                        "at": at,
                        "kind": "stage-entered",
                        "body": json.dumps(body | {"at": at.isoformat()}),
                    }
                )
            step = {"id": f"{name}-S1", "incident_id": name, "digest": "0", "created_at": at}
            rows[schema.steps].append(
                step | {"number": 1, "status": "verified", "updated_at": at, "body": "{}"}
            )
            rows[schema.effects].append(
                {
                    "key": f"{name}-S1:0",
                    "incident_id": name,
                    "step_id": f"{name}-S1",
                    "digest": "0",
                    "state": "done",
                    "intended_at": at,
                    "rollback_attempts": 0,
                    "action": "switch.set",
                    "host": f"host-{number % 100}",
                    "service": "",
                }
            )
        with journal.store.transaction() as connection:
            for table, values in rows.items():
                connection.execute(table.insert(), values)


def main() -> int:
    """Measure, print a table, and keep the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--incidents", type=int, default=10_000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wk-overhead-") as name:
        root = Path(name)
        updates = recorded(root / "recorded")
        fill(root / "filled", given.incidents)
        with Journal(root / "empty"):
            pass
        times: dict[str, list[float]] = {"bare": [], "store": [], "incident": [], "empty": [], "many": []}
        for number in range(given.rounds):
            folder = root / f"round-{number}"
            folder.mkdir()
            _, seconds, _ = incident(folder / "o", folder / "o" / "home", power="cut")
            times["incident"].append(seconds / len(updates))
            times["bare"].append(bare(folder / "b", updates, ours=False))
            times["store"].append(bare(folder / "s", updates, ours=True))
            for kind, source in (("empty", "empty"), ("many", "filled")):
                shutil.copytree(root / source, folder / f"{kind}-home")
                seconds, _, end = incident(folder / kind, folder / f"{kind}-home", switch="off")
                assert end == "resolved", end
                times[kind].append(seconds)
        commits = effect(root / "effect")
    middle = {kind: statistics.median(found) for kind, found in times.items()}
    results = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "rounds": given.rounds,
        "nodes": len(updates),
        "seconds": {kind: [round(value, 4) for value in found] for kind, found in times.items()},
        "step_ratio": round(middle["store"] / middle["bare"], 3),
        "recorded_step_ratio": round(middle["incident"] / middle["bare"], 3),
        "effect": commits,
        "incidents": given.incidents,
        "many_ratio": round(middle["many"] / middle["empty"], 3),
    }
    given.results.parent.mkdir(parents=True, exist_ok=True)
    given.results.write_text(json.dumps(results, indent=2) + "\n")
    print(f"{'a step of a bare graph, LangGraph saver':44} {1000 * middle['bare']:8.2f} ms")
    print(f"{'the same over our store':44} {1000 * middle['store']:8.2f} ms")
    print(f"{'ratio (target: at most 1.3)':44} {results['step_ratio']:8.2f}")
    print(f"{'a step of an incident, recorded and audited':44} {1000 * middle['incident']:8.2f} ms")
    print(f"{'ratio':44} {results['recorded_step_ratio']:8.2f}")
    print(f"{'commits of an effect (target: at most 2)':44} {commits.get('commits', 0):8d}")
    print(f"{'file syncs of an effect (audit log)':44} {commits.get('syncs', 0):8d}")
    print(f"{'an incident in an empty store':44} {middle['empty']:8.2f} s")
    print(f"{f'an incident among {given.incidents}':44} {middle['many']:8.2f} s")
    print(f"{'ratio (target: at most 1.2)':44} {results['many_ratio']:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
