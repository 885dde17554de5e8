"""Latency and throughput of served predictors, with and without micro-batches.

python benchmarks/predictors.py [--requests 600] [--rounds 3] [--hidden 512]

A network (64 numbers in, two layers of 512 by default) answers on loopback; clients of another process ask
one row a request, so many at a time. Each setting is asked in turns, so that whatever else the machine does
hits all of them; figures are medians over the turns. The processor time of the server hardly depends on what
else runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).parent.parent))

import httpx
import torch
from pydantic import JsonValue

from watchkeeper.models.server.running import Runner, address_of, listen
from watchkeeper.tools.predictors import Manifest, Predictor, register_kind, write_manifest
from watchkeeper.tools.predictors.interface import Row
from watchkeeper.tools.predictors.recording import Predictions
from watchkeeper.tools.serving.app import PredictService
from watchkeeper.tools.serving.following import Follower
from watchkeeper.tools.versions import Versions

RESULTS = Path(__file__).parent / "results" / "predictors.json"
KIND = "benchmark-network"
WIDTH = 64
WARM_UP = 5
SETTINGS = {
    "one by one": {"window": 0.0, "record": False},
    "micro-batches of 2 ms": {"window": 0.002, "record": False},
    "micro-batches of 2 ms, recorded": {"window": 0.002, "record": True},
}


class Network(Predictor):
    """A small network."""

    kind = KIND
    columns: ClassVar[dict[str, str]] = {f"x{number}": "a number" for number in range(WIDTH)}

    def __init__(self, layers: torch.nn.Sequential) -> None:
        self._layers = layers

    @classmethod
    def load(cls, folder: Path) -> Network:
        """Load it."""
        weights = torch.load(folder / "weights.pt", weights_only=True)
        layers = _layers(len(weights["0.bias"]))
        layers.load_state_dict(weights)
        return cls(layers.eval())

    @torch.inference_mode()
    def predict(self, rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
        """Answer rows."""
        values = torch.tensor([[row[name] for name in self.columns] for row in rows], dtype=torch.float32)
        return [{"score": score} for score in self._layers(values).squeeze(1).tolist()]


def _layers(hidden: int) -> torch.nn.Sequential:
    nn = torch.nn
    return nn.Sequential(
        nn.Linear(WIDTH, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
    )


def registered(home: Path, hidden: int) -> Versions:
    """Keep a network as version 1, and let it answer."""
    register_kind(KIND, f"{__name__}:Network")
    folder = home / "made"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(_layers(hidden).state_dict(), folder / "weights.pt")
    write_manifest(folder, Manifest(kind=KIND, trainer="benchmark", created_at=datetime.now(UTC)))
    versions = Versions(home)
    versions.register("network", folder)
    versions.promote("network", 1, by="benchmark")
    return versions


@contextmanager
def served(versions: Versions, *, window: float, record: bool) -> Iterator[str]:
    """Serve the champions in a thread of this process."""
    follower = Follower(versions)
    follower.start()
    kept = Predictions(versions.folder / "predictions.db") if record else None
    service = PredictService(follower, window=window, predictions=kept)
    with listen("127.0.0.1", 0, guarded=False) as listening:
        runner = Runner(service, grace=1)
        thread = threading.Thread(target=runner.run, args=([listening],))
        thread.start()
        try:
            yield address_of(listening)
        finally:
            runner.stop()
            thread.join()
            if kept is not None:
                kept.close()


def _clients(address: str, requests: int, at_once: int) -> dict[str, float]:
    """Ask in another process; returns milliseconds, and requests a second."""
    return asyncio.run(_asked(address, requests, at_once))


async def _asked(address: str, requests: int, at_once: int) -> dict[str, float]:
    body = {"rows": [{f"x{number}": number / WIDTH for number in range(WIDTH)}]}
    url = f"{address}/predictors/network/predict"
    seconds: list[float] = []
    left = iter(range(requests))
    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:
        for _ in range(WARM_UP):
            (await client.post(url, json=body)).raise_for_status()

        async def one() -> None:
            for _ in left:
                began = time.perf_counter()
                (await client.post(url, json=body)).raise_for_status()
                seconds.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(at_once)))
        whole = time.perf_counter() - began
    cuts = statistics.quantiles(seconds, n=100)
    return {
        "p50_ms": 1000 * statistics.median(seconds),
        "p95_ms": 1000 * cuts[94],
        "p99_ms": 1000 * cuts[98],
        "requests_per_second": requests / whole,
    }


def follow_seconds(versions: Versions, address: str) -> float:
    """Return the seconds from a move of the alias until the server names the other version."""
    folder = versions.get("network").folder
    second = folder.parent / "made-2"
    shutil.copytree(folder, second)
    manifest = json.loads((second / "predictor.json").read_text())
    (second / "predictor.json").write_text(json.dumps({**manifest, "seed": int(time.time())}))
    number = versions.register("network", second).number
    shutil.rmtree(second)
    versions.promote("network", number, by="benchmark")
    moved = time.perf_counter()
    while (
        httpx.get(address.removesuffix("/v1") + "/health").json()["predictors"]["network"]["champion"]
        != number
    ):
        time.sleep(0.005)
    return time.perf_counter() - moved


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=512, help="Width of the network's layers.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(1) as clients,
    ):
        versions = registered(Path(folder) / "home", given.hidden)
        for _ in range(given.rounds):
            for name, setting in SETTINGS.items():
                with served(versions, window=setting["window"], record=bool(setting["record"])) as address:
                    for at_once in (1, 8, 32):
                        began = time.process_time()
                        answered = clients.apply(_clients, (address, given.requests, at_once))
                        # This process serves, and its other threads wait.
                        spent = (time.process_time() - began) / (given.requests + WARM_UP)
                        turn = {**answered, "server_cpu_ms": 1000 * spent}
                        found.setdefault((name, at_once), []).append(turn)
        with served(versions, window=0.002, record=False) as address:
            follows = [follow_seconds(versions, address) for _ in range(3)]
    rows = [
        {"setting": name, "at_once": at_once}
        | {key: statistics.median(one[key] for one in turns) for key in turns[0]}
        for (name, at_once), turns in found.items()
    ]
    print(
        f"{'setting':34}{'clients':>8}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'requests/s':>12}"
        f"{'server CPU ms':>15}"
    )
    for row in rows:
        print(
            f"{row['setting']:34}{row['at_once']:>8}{row['p50_ms']:>9.1f}{row['p95_ms']:>9.1f}"
            f"{row['p99_ms']:>9.1f}{row['requests_per_second']:>12.0f}{row['server_cpu_ms']:>15.2f}"
        )
    print(f"a moved alias answers after {statistics.median(follows):.2f} s (median of {len(follows)})")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps(
            {
                "machine": {"system": platform.platform(), "processors": os.cpu_count()},
                "load": os.getloadavg(),
                "hidden": given.hidden,
                "rows": rows,
                "follow_seconds": follows,
            },
            indent=2,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
