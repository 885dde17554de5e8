"""ASI06, Memory and Context Poisoning: what a stranger writes is not remembered into anyone's decisions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import ORDER, handle, write_diary
from tests.lamp import Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper import Alert
from watchkeeper.agents import BUILTIN_CAUSES, Reading
from watchkeeper.runtime.readings import reading_evidence
from watchkeeper.tools.evidence import digest_json
from watchkeeper.tools.fact import Provenance

SECRET = "hunter2-and-more"


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder / "home"


def test_one_incidents_text_is_in_no_prompt_of_the_next(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    write_diary(tmp_path, "CANARY " + ORDER)
    engine = prefers("switch")
    with orchestrator(home, lamp, engine) as o:
        handle(o)
        assert "CANARY" in repr(engine.requests)  # the reader saw it
        engine.requests.clear()
        write_diary(tmp_path, "nothing")
        lamp.put("switch", "off")
        assert handle(o).outcome == "resolved"
    assert engine.requests
    assert "CANARY" not in repr(engine.requests)


def test_what_the_reader_says_is_kept_and_supports_no_cause(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    write_diary(tmp_path, ORDER)
    with orchestrator(home, lamp, prefers("switch")) as o:
        report = handle(o)
    source = next(e for e in report.evidence if e.fact == "lamp.diary")
    assert source.provenance is Provenance.UNTRUSTED
    said = reading_evidence("E9", source, Reading(theme="memory"), 1.0, report.incident.opened_at)
    kinds = {finding.kind for finding in said.findings}
    for cause in BUILTIN_CAUSES:
        assert not kinds & {*cause.supported_by, *cause.strengthened_by, *cause.requires}
    assert not [d for d in report.diagnoses for c in d.claims if source.id in c.evidence_ids]


def test_claims_cite_evidence_that_exists_and_says_so(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off", bulb="old", power="cut")
    with orchestrator(home, lamp, prefers("switch", "bulb")) as o:
        report = handle(o)
    said = {(item.id, finding.text) for item in report.evidence for finding in item.findings}
    claims = [(id_, claim.text) for d in report.diagnoses for claim in d.claims for id_ in claim.evidence_ids]
    assert claims
    assert set(claims) <= said


def test_evidence_that_was_changed_does_not_fit_its_digest(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    with orchestrator(home, lamp, prefers("switch")) as o:
        report = handle(o)
    for item in report.evidence:
        assert item.digest == digest_json(item.result)
        assert item.digest != digest_json({**(item.result or {}), "forged": True})


def test_secrets_in_an_alert_are_not_kept_anywhere(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    alert = Alert.model_validate(
        {
            "title": f"login failed: password={SECRET}",
            "description": f"Authorization: Bearer {SECRET}\nhttps://root:{SECRET}@db/x",
            "labels": {"api_key": SECRET, "team": "ops"},
            "host": "house",
            "condition": {"fact": "lamp.light"},
        }
    )
    with orchestrator(home, lamp, prefers("switch")) as o:
        report = handle(o, alert)
    assert report.incident.alert.title == "login failed: password=[redacted]"
    assert report.incident.alert.labels == {"api_key": "[redacted]", "team": "ops"}
    kept = [path for path in home.rglob("*") if path.is_file()]
    assert len(kept) > 3
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]
