"""Serving predictors: batches, aliases that move, shadows and canaries, and what clients get wrong."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import JsonValue

from tests.clocks import START, FakeClock
from tests.threshold import Threshold, make
from watchkeeper.models.server.keys import ApiKeys, add_key
from watchkeeper.tools.errors import DataError, ToolError, VersionError
from watchkeeper.tools.predictors import Predictor, open_predictor, read_manifest
from watchkeeper.tools.predictors.interface import Row
from watchkeeper.tools.predictors.recording import Predictions, Tally
from watchkeeper.tools.serving.answering import ChallengerMode
from watchkeeper.tools.serving.app import PredictService
from watchkeeper.tools.serving.following import Follower
from watchkeeper.tools.serving.routing import is_canary
from watchkeeper.tools.versions import Version, VersionRecord


class Shelf:
    """Versions of one predictor in memory: number n has the threshold n / 10."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.named: dict[str, int] = {"champion": 1}
        self.opened: list[int] = []
        self.made: dict[int, Predictor] = {}
        self.slow = threading.Event()
        self.slow.set()

    def names(self) -> tuple[str, ...]:
        return ("busy",)

    def aliases(self, name: str) -> dict[str, int]:
        return dict(self.named)

    def name(self, alias: str, number: int) -> None:
        self.named[alias] = number
        (self.folder / "mlflow.db").write_text(f"{time.monotonic_ns()}")

    def open(self, name: str, which: str | int) -> tuple[Version, Predictor]:
        number = int(which)
        self.opened.append(number)
        assert self.slow.wait(10)
        if number == 13:
            raise VersionError("version 13 is not as it was kept")
        folder = make(self.folder / str(number), number / 10)
        record = VersionRecord(
            name=name,
            digest=f"{number:064}",
            files={},
            manifest=read_manifest(folder),
            registered_at=START,
        )
        predictor = self.made.get(number) or open_predictor(folder)
        self.made[number] = predictor
        return Version(number=number, folder=folder, record=record), predictor


class Gate(Threshold):
    """Answers only while its gate is open."""

    def __init__(self, threshold: float) -> None:
        super().__init__(threshold)
        self.gate = threading.Event()

    def predict(self, rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
        assert self.gate.wait(10)
        return super().predict(rows)


class Broken(Threshold):
    def predict(self, rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
        raise ZeroDivisionError("a secret")


class Demanding(Threshold):
    """Wants a column that the version before it did not want."""

    def predict(self, rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
        raise DataError("row 1 has no column 'weekday'")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@asynccontextmanager
async def client_of(
    shelf: Shelf, *, base: str = "http://127.0.0.1", interval: float = 0.02, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    follower = Follower(shelf, interval=interval)
    follower.start()
    service = PredictService(follower, **options)
    transport = httpx.ASGITransport(app=service.application())
    try:
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            yield client
    finally:
        service.workers.close()


async def ask(client: httpx.AsyncClient, *loads: Any, by: str = "") -> httpx.Response:
    return await client.post(
        "/v1/predictors/busy/predict", json={"rows": [{"load": load} for load in loads], "id": by}
    )


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.005)


@pytest.mark.asyncio
async def test_an_answer_names_the_version_that_gave_it(shelf: Shelf) -> None:
    async with client_of(shelf) as client:
        answer = await ask(client, 0.05, 0.2, by="r1")
    assert answer.status_code == 200
    assert answer.json() == {
        "id": "r1",
        "predictor": "busy",
        "version": 1,
        "digest": f"{1:064}",
        "role": "champion",
        "ids": ["r1:0", "r1:1"],
        "answers": [{"busy": False, "score": -0.05}, {"busy": True, "score": 0.1}],
    }


@pytest.mark.asyncio
async def test_requests_of_the_same_moment_are_computed_together(shelf: Shelf) -> None:
    async with client_of(shelf, window=0.05) as client:
        answers = await asyncio.gather(*(ask(client, number / 10) for number in range(6)))
    assert [answer.json()["answers"][0]["busy"] for answer in answers] == [
        False,
        False,
        True,
        True,
        True,
        True,
    ]
    predictor = shelf.made[1]
    assert isinstance(predictor, Threshold)
    assert predictor.batches == [6]


@pytest.mark.asyncio
async def test_without_a_window_every_request_is_computed_alone(shelf: Shelf) -> None:
    async with client_of(shelf, window=0) as client:
        await asyncio.gather(*(ask(client, 0.5) for _ in range(4)))
    predictor = shelf.made[1]
    assert isinstance(predictor, Threshold)
    assert predictor.batches == [1, 1, 1, 1]


@pytest.mark.asyncio
async def test_a_batch_holds_no_more_rows_than_it_may(shelf: Shelf) -> None:
    async with client_of(shelf, window=0.05, most_rows=4) as client:
        await asyncio.gather(*(ask(client, 0.5, 0.6) for _ in range(5)))
    predictor = shelf.made[1]
    assert isinstance(predictor, Threshold)
    assert predictor.batches == [4, 4, 2]


@pytest.mark.asyncio
async def test_a_wrong_row_is_nobody_elses_mistake(shelf: Shelf) -> None:
    async with client_of(shelf, window=0.05) as client:
        good, bad, other = await asyncio.gather(ask(client, 0.5), ask(client, 0.5, "high"), ask(client, 0.7))
    assert (good.status_code, bad.status_code, other.status_code) == (200, 422, 200)
    assert bad.json()["error"]["message"] == "row 1: column 'load' holds 'high', which is no number"


@pytest.mark.asyncio
async def test_a_row_at_which_a_version_breaks_is_nobody_elses_failure(shelf: Shelf, tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db")
    async with client_of(shelf, predictions=kept, window=0.05) as client:
        answers = await asyncio.gather(ask(client, 0.5), ask(client, 10**400), ask(client, 0.7, 0.8))
    assert [answer.status_code for answer in answers] == [200, 500, 200]
    assert kept.tally("busy", version=1, roles=("champion",)) == Tally(answered=3, failed=1)


@pytest.mark.asyncio
async def test_who_comes_to_a_full_queue_is_told_to_come_back(shelf: Shelf) -> None:
    gate = Gate(0.1)
    shelf.made[1] = gate
    async with client_of(shelf, window=0, waiting_rows=2) as client:
        first = asyncio.create_task(ask(client, 0.5))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(ask(client, 0.5)) for _ in range(2)]
        await asyncio.sleep(0.05)
        refused = await ask(client, 0.5)
        gate.gate.set()
        answers = [await task for task in (first, *waiting)]
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert [answer.status_code for answer in answers] == [200, 200, 200]


@pytest.mark.asyncio
async def test_a_moved_alias_answers_without_a_restart(shelf: Shelf) -> None:
    async with client_of(shelf, interval=0.25) as client:
        assert (await ask(client, 0.5)).json()["version"] == 1
        shelf.name("champion", 2)
        moved = time.monotonic()
        while (await ask(client, 0.5)).json()["version"] == 1:
            assert time.monotonic() - moved < 10
            await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_no_request_fails_while_an_alias_moves(shelf: Shelf) -> None:
    seen: set[int] = set()
    async with client_of(shelf, interval=0.01) as client:
        for number in (2, 3, 4):
            shelf.name("champion", number)
            for _ in range(40):
                answer = await ask(client, 0.35)
                assert answer.status_code == 200
                said = answer.json()
                # Whoever it names also gave the answer.
                assert said["answers"][0]["busy"] is (said["version"] / 10 < 0.35)
                seen.add(said["version"])
                await asyncio.sleep(0.001)
    assert seen >= {2, 3, 4}


@pytest.mark.asyncio
async def test_a_version_that_cannot_be_loaded_leaves_the_one_before_and_is_tried_again(shelf: Shelf) -> None:
    async with client_of(shelf) as client:
        shelf.name("champion", 13)
        await until(lambda: shelf.opened.count(13) >= 2)
        assert (await ask(client, 0.5)).json()["version"] == 1
        health = await client.get("/health")
        assert health.json() == {
            "status": "degraded",
            "predictors": {"busy": {"champion": 1}},
            "loading": {},
            "failed": {"busy": {"champion": 13}},
        }
        assert b"watchkeeper_predictor_load_problems 1.0" in (await client.get("/metrics")).content
        shelf.name("champion", 2)
        await until(lambda: 2 in shelf.opened)
        assert (await ask(client, 0.5)).json()["version"] == 2


def test_a_version_that_cannot_be_loaded_is_tried_again_ever_more_seldom_and_at_once_after_a_change(
    shelf: Shelf,
) -> None:
    follower = Follower(shelf, interval=0.01)
    follower.look()
    shelf.name("challenger", 13)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        follower.look()
    assert 2 <= shelf.opened.count(13) <= 6  # after 0.02, 0.04, 0.08 ... seconds
    assert follower.failed == {("busy", "challenger"): 13}
    tried = shelf.opened.count(13)
    shelf.name("champion", 2)
    follower.look()
    assert shelf.opened.count(13) == tried + 1
    assert follower.get("busy", "champion") is not None
    shelf.name("challenger", 3)
    follower.look()
    assert (follower.problems, follower.failed) == ({}, {})


@pytest.mark.asyncio
async def test_what_is_being_loaded_is_told_while_the_version_before_answers(shelf: Shelf) -> None:
    async with client_of(shelf) as client:
        shelf.slow.clear()
        shelf.name("champion", 2)
        await until(lambda: 2 in shelf.opened)
        health = (await client.get("/health")).json()
        assert health["predictors"] == {"busy": {"champion": 1}}
        assert health["loading"] == {"busy": {"champion": 2}}
        assert (await ask(client, 0.5)).json()["version"] == 1
        shelf.slow.set()
        while (health := (await client.get("/health")).json())["loading"]:
            await asyncio.sleep(0.005)
        assert health["predictors"] == {"busy": {"champion": 2}}


def test_what_was_taken_back_while_it_was_loaded_never_answers(shelf: Shelf) -> None:
    class TakenBack(Shelf):
        def open(self, name: str, which: str | int) -> tuple[Version, Predictor]:
            found = super().open(name, which)
            self.name("champion", 1)
            return found

    moved = TakenBack(shelf.folder)
    follower = Follower(moved)
    follower.look()
    moved.name("champion", 2)
    follower.look()
    answering = follower.get("busy", "champion")
    assert answering is not None
    assert (answering.version.number, moved.opened, follower.loading) == (1, [1, 2], {})


def test_a_server_does_not_begin_with_a_version_that_cannot_be_loaded(shelf: Shelf) -> None:
    shelf.named["champion"] = 13
    with pytest.raises(ToolError, match="champion of 'busy' cannot be loaded: version 13 is not as it was"):
        Follower(shelf).start()


@pytest.mark.asyncio
async def test_a_challenger_that_cannot_be_loaded_keeps_no_champion_from_answering(shelf: Shelf) -> None:
    shelf.named["challenger"] = 13
    async with client_of(shelf) as client:
        assert (await ask(client, 0.5)).json()["version"] == 1
        assert (await client.get("/health")).json()["status"] == "degraded"


@pytest.mark.asyncio
async def test_an_id_is_one_row_s_and_a_repeated_request_is_answered_again(
    shelf: Shelf, tmp_path: Path
) -> None:
    kept = Predictions(tmp_path / "state" / "p.db")
    async with client_of(shelf, predictions=kept) as client:
        assert (await ask(client, 0.5, by="r1")).status_code == 200
        assert (await ask(client, 0.5, by="r1")).status_code == 200
        other = await ask(client, 0.05, by="r1")
        assert (await ask(client, 0.05, by="r2")).status_code == 200
    assert other.status_code == 409
    assert other.json()["error"]["code"] == "id_taken"
    assert [(one.id, one.asked["load"]) for one in kept.list("busy")] == [("r1", 0.5), ("r2", 0.05)]


@pytest.mark.asyncio
async def test_a_predictor_without_a_champion_says_what_to_do(shelf: Shelf) -> None:
    shelf.named.clear()
    async with client_of(shelf) as client:
        answer = await ask(client, 0.5)
    assert answer.status_code == 503
    assert "promote a version with `watchkeeper predictors promote busy" in answer.json()["error"]["message"]


@pytest.mark.asyncio
async def test_a_shadow_answers_too_and_nobody_gets_it(shelf: Shelf, tmp_path: Path) -> None:
    shelf.named["challenger"] = 6
    kept = Predictions(tmp_path / "state" / "p.db")
    async with client_of(
        shelf, challenger=ChallengerMode.SHADOW, predictions=kept, now=FakeClock()
    ) as client:
        answer = await ask(client, 0.5, by="r1")
        assert answer.json()["version"] == 1
        await until(lambda: kept.count("busy") == 2)
    found = {one.role: one for one in kept.list("busy")}
    assert (found["champion"].answer["busy"], found["shadow"].answer["busy"]) == (True, False)
    assert (found["champion"].version, found["shadow"].version) == (1, 6)
    assert found["champion"].id == found["shadow"].id == "r1"
    assert found["shadow"].asked == {"load": 0.5}


@pytest.mark.asyncio
async def test_a_shadow_that_fails_or_hangs_costs_nobody_an_answer(shelf: Shelf) -> None:
    shelf.named["challenger"] = 6
    shelf.made[6] = Broken(0.6)
    async with client_of(shelf, challenger=ChallengerMode.SHADOW) as client:
        assert (await ask(client, 0.5)).status_code == 200
        lost = b'watchkeeper_predictor_challenger_lost_total{predictor="busy"} 1.0'
        deadline = time.monotonic() + 5
        while lost not in (await client.get("/metrics")).content:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_a_shadow_that_hangs_keeps_no_champion_waiting(shelf: Shelf) -> None:
    shelf.named["challenger"] = 6
    gate = Gate(0.6)
    shelf.made[6] = gate
    async with client_of(shelf, challenger=ChallengerMode.SHADOW, threads=1) as client:
        try:
            answers = [await asyncio.wait_for(ask(client, 0.5), 5) for _ in range(3)]
        finally:
            gate.gate.set()
    assert [answer.status_code for answer in answers] == [200, 200, 200]


@pytest.mark.asyncio
async def test_who_waits_when_the_server_ends_is_told(shelf: Shelf) -> None:
    gate = Gate(0.1)
    shelf.made[1] = gate
    follower = Follower(shelf, interval=0.02)
    follower.start()
    service = PredictService(follower, threads=1, window=0)
    transport = httpx.ASGITransport(app=service.application())
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        first = asyncio.create_task(ask(client, 0.5))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(ask(client, 0.6))
        await asyncio.sleep(0.05)
        service.workers.refuse()
        service.workers.cancel_all()
        gate.gate.set()
        answers = [await asyncio.wait_for(task, 5) for task in (first, second)]
    service.workers.close()
    assert answers[0].status_code == 200
    assert answers[1].status_code == 503


@pytest.mark.asyncio
async def test_a_canary_answers_its_share_and_always_the_same_requests(shelf: Shelf) -> None:
    shelf.named["challenger"] = 6
    ids = [f"r{number}" for number in range(60)]
    async with client_of(shelf, challenger=ChallengerMode.CANARY, canary=0.3) as client:
        first = [(await ask(client, 0.5, by=one)).json() for one in ids]
        again = [(await ask(client, 0.5, by=one)).json() for one in ids]
    assert [one["version"] for one in first] == [one["version"] for one in again]
    assert [one["version"] for one in first] == [6 if is_canary(one, 0.3) else 1 for one in ids]
    assert {one["role"] for one in first} == {"champion", "canary"}


@pytest.mark.asyncio
async def test_a_canary_that_fails_is_answered_for_by_the_champion(shelf: Shelf) -> None:
    shelf.named["challenger"] = 6
    shelf.made[6] = Broken(0.6)
    async with client_of(shelf, challenger=ChallengerMode.CANARY, canary=1.0) as client:
        answer = await ask(client, 0.5)
    assert (answer.status_code, answer.json()["role"]) == (200, "champion")


@pytest.mark.asyncio
async def test_rows_that_only_a_canary_refuses_are_answered_by_the_champion(shelf: Shelf) -> None:
    shelf.named["challenger"] = 6
    shelf.made[6] = Demanding(0.6)
    lost = b'watchkeeper_predictor_challenger_lost_total{predictor="busy"} '
    async with client_of(shelf, challenger=ChallengerMode.CANARY, canary=1.0) as client:
        answer = await ask(client, 0.5)
        wrong = await ask(client, "much")
        counted = (await client.get("/metrics")).content
    assert (answer.status_code, answer.json()["role"]) == (200, "champion")
    assert wrong.status_code == 422
    assert lost + b"1.0" in counted


@pytest.mark.asyncio
async def test_rows_at_which_a_version_fails_are_counted(shelf: Shelf, tmp_path: Path) -> None:
    kept, clock = Predictions(tmp_path / "state" / "p.db"), FakeClock()
    async with client_of(shelf, predictions=kept, window=0.05, now=clock) as client:
        answers = await asyncio.gather(ask(client, 0.5), ask(client, "high"), ask(client, 0.7, 0.8))
        shelf.made[2] = Broken(0.2)
        shelf.name("champion", 2)
        await until(lambda: 2 in shelf.opened)
        while (await ask(client, 0.5, 0.6)).status_code == 200:
            await asyncio.sleep(0.005)
    assert [answer.status_code for answer in answers] == [200, 422, 200]

    def tally(version: int) -> Tally:
        return kept.tally("busy", version=version, roles=("champion",), since=clock.at)

    assert tally(1).failed == 1
    assert tally(1).answered >= 3
    assert tally(2) == Tally(answered=0, failed=2)


@pytest.mark.asyncio
async def test_how_long_an_answer_took_is_recorded_with_the_time_it_waited(
    shelf: Shelf, tmp_path: Path
) -> None:
    kept = Predictions(tmp_path / "state" / "p.db")
    gate = shelf.made[1] = Gate(0.5)
    async with client_of(shelf, predictions=kept, window=0.001, now=FakeClock()) as client:
        first = asyncio.create_task(ask(client, 0.5, by="first"))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(ask(client, 0.5, by="second"))
        await asyncio.sleep(0.6)
        gate.gate.set()
        await asyncio.gather(first, second)
        await ask(client, 0.5, by="third")
    seconds = {one.id: one.seconds or 0.0 for one in kept.list("busy")}
    assert seconds["first"] > seconds["second"] > 0.1
    assert seconds["second"] > seconds["third"] > 0


@pytest.mark.asyncio
async def test_failures_that_cannot_be_counted_are_told_as_they_are(shelf: Shelf, tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db")
    shelf.made[1] = Broken(0.1)
    async with client_of(shelf, predictions=kept) as client:
        kept.close()
        (tmp_path / "state" / "p.db").write_bytes(b"no database")
        assert (await ask(client, 0.5)).json()["error"]["message"] == "the server failed (ZeroDivisionError)"
        counted = (await client.get("/metrics")).text
    assert 'watchkeeper_predictor_unrecorded_total{predictor="busy"} 1.0' in counted


def test_a_share_of_requests_is_that_share() -> None:
    ids = [f"request-{number}" for number in range(20_000)]
    assert sum(is_canary(one, 0.1) for one in ids) == pytest.approx(2000, abs=200)
    assert not any(is_canary(one, 0.0) for one in ids)
    assert all(is_canary(one, 1.0) for one in ids)


@pytest.mark.asyncio
async def test_labels_arrive_later_by_id(shelf: Shelf, tmp_path: Path) -> None:
    kept = Predictions(tmp_path / "state" / "p.db")
    async with client_of(shelf, predictions=kept) as client:
        await ask(client, 0.5, by="r1")
        done = await client.post("/v1/predictors/busy/labels", json={"labels": {"r1": True, "never": False}})
        (one,) = kept.list("busy", labelled=True)
        assert one.label is True
        await client.post("/v1/predictors/busy/labels", json={"labels": {"r1": None}})
    assert done.json() == {"labelled": 1, "unknown": ["never"]}
    assert (kept.count("busy", labelled=True), kept.list("busy", labelled=True)) == (0, ())


@pytest.mark.asyncio
async def test_only_who_has_a_key_is_answered(shelf: Shelf, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys", "web")
    async with client_of(shelf, keys=ApiKeys.read(tmp_path / "keys")) as client:
        assert (await ask(client, 0.5)).status_code == 401
        client.headers["authorization"] = "Bearer wk-wrong"
        assert (await ask(client, 0.5)).status_code == 401
        client.headers["authorization"] = f"Bearer {key}"
        assert (await ask(client, 0.5)).status_code == 200


@pytest.mark.asyncio
async def test_without_keys_this_machine_alone_is_answered(shelf: Shelf) -> None:
    async with client_of(shelf, base="http://evil.example", local_only=True) as client:
        assert (await ask(client, 0.5)).status_code == 403


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("{", 400, "Invalid JSON"),
        ("{}", 400, "rows: Field required"),
        ('{"rows": []}', 400, "rows: List should have at least 1 item"),
        ('{"rows": [1]}', 400, "rows.0: Input should be"),
        ('{"rows": [{}], "id": "a b"}', 400, "id: String should match"),
        ('{"rows": [{}], "more": 1}', 400, "more: Extra inputs"),
        ('{"rows": [{}]}', 422, "row 0: column 'load' holds None"),
        ('{"rows": [' + ",".join(["{}"] * 11) + "]}", 413, "11 rows are more than 10"),
        ('{"rows": [{"load": "' + "x" * 2000 + '"}]}', 413, "larger than 2,000 bytes"),
    ],
)
async def test_what_clients_get_wrong_is_told(shelf: Shelf, body: str, status: int, said: str) -> None:
    async with client_of(shelf, most_bytes=2000, waiting_rows=10) as client:
        answer = await client.post(
            "/v1/predictors/busy/predict", content=body, headers={"content-type": "application/json"}
        )
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


@pytest.mark.asyncio
async def test_other_addresses_kinds_and_defects(shelf: Shelf) -> None:
    shelf.made[1] = Broken(0.1)
    async with client_of(shelf) as client:
        form = await client.post("/v1/predictors/busy/predict", data={"rows": "1"})
        unknown = await client.post("/v1/predictors/lazy/predict", json={"rows": [{}]})
        nowhere = await client.get("/v2")
        defect = await ask(client, 0.5)
        counted = (await client.get("/metrics")).text
    assert (form.status_code, unknown.status_code, nowhere.status_code) == (415, 404, 404)
    assert "no predictor 'lazy' is served here; there is: busy" in unknown.text
    assert defect.status_code == 500
    assert "secret" not in defect.text
    assert 'watchkeeper_predictor_requests_total{predictor="busy",status="500"} 1.0' in counted
    assert 'watchkeeper_predictor_requests_total{predictor="-",status="404"} 1.0' in counted


@pytest.mark.asyncio
async def test_metrics_and_lists_name_versions(shelf: Shelf) -> None:
    async with client_of(shelf) as client:
        await ask(client, 0.5, 0.6)
        counted = (await client.get("/metrics")).text
        listed = (await client.get("/v1/predictors")).json()["predictors"]
        health = (await client.get("/health")).json()
    assert 'watchkeeper_predictor_rows_total{predictor="busy",role="champion",version="1"} 2.0' in counted
    assert 'watchkeeper_predictor_version{alias="champion",predictor="busy"} 1.0' in counted
    assert 'watchkeeper_predictor_seconds_count{predictor="busy"}' in counted
    assert listed == [
        {
            "predictor": "busy",
            "version": 1,
            "digest": f"{1:064}",
            "kind": "tests-threshold",
            "columns": {"load": "a number"},
        }
    ]
    assert health == {"status": "ok", "predictors": {"busy": {"champion": 1}}, "loading": {}, "failed": {}}
