"""What a timeline says to people."""

from __future__ import annotations

import subprocess
import sys

from watchkeeper.runtime.events import EvidenceGathered
from watchkeeper.runtime.wording import describe_event
from watchkeeper.tools.findings import Finding, Severity


def test_sentences_of_findings_are_put_together_without_a_stop_before_the_next() -> None:
    found = tuple(
        Finding(kind="k", subject="s", text=text, severity=Severity.WARNING) for text in ("One.", "Two.")
    )
    event = EvidenceGathered(evidence_id="E1", fact="process.list", host="web-1", findings=found)
    assert describe_event(event) == "E1 process.list: One; Two."
    assert describe_event(event.model_copy(update={"findings": found[:1]})) == "E1 process.list: One."
    assert describe_event(event.model_copy(update={"findings": ()})) == "E1 process.list: nothing unusual"


def test_libraries_that_models_need_say_nothing_when_they_are_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import watchkeeper.models, peft, bitsandbytes"],
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    assert (done.stdout, done.stderr) == ("", "")
