"""Reports as files: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from watchkeeper.runtime.events import Escalated
from watchkeeper.runtime.report import Report
from watchkeeper.runtime.steps import StepStatus
from watchkeeper.runtime.wording import describe_event, visible
from watchkeeper.tools.findings import Severity
from watchkeeper.tools.redaction import redact_looks, redact_text

_WITH_REASON = {StepStatus.REFUSED, StepStatus.FAILED, StepStatus.ROLLED_BACK, StepStatus.IN_DOUBT}
"""Where steps stand of which people ask why."""


def render_markdown(report: Report) -> str:
    """Write a report for people."""
    return "\n".join(_lines(report)) + "\n"


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write a report as Markdown and JSON, without secrets; each file is whole or not there.

    Returns:
        The Markdown file and the JSON file.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    written: list[Path] = []
    values = redact_looks(report.model_dump(mode="json"))
    for suffix, text in (
        ("md", redact_text(render_markdown(report))),
        ("json", json.dumps(values, indent=2, ensure_ascii=False)),
    ):
        path = folder / f"{report.incident.id}.{suffix}"
        temporary = path.with_suffix(f".{suffix}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
        written.append(path)
    return written[0], written[1]


def plain(text: str) -> str:
    """Make text that others wrote harmless in Markdown: no markup of its own, no link, no picture."""
    escaped = code(text).replace("\\", "\\\\")
    return escaped.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def code(text: str) -> str:
    """Make text that others wrote harmless between backquotes."""
    return visible(text).replace("`", "'")


def _lines(report: Report) -> Iterator[str]:
    incident = report.incident
    yield f"# {incident.id}: {plain(incident.alert.title)}"
    yield ""
    yield f"**Outcome: {report.outcome}.** {plain(report.reason)}"
    if report.summary and report.summary != report.reason:
        yield ""
        yield f"> {plain(report.summary)}"
        yield ">"
        yield "> (written by the model; every number and path in it was checked against the record)"
    yield from _handed_over(report)
    yield from _diagnosis(report)
    yield from _observed(report)
    yield from _changes(report)
    if report.suspicious:
        yield ""
        yield "## Suspicious text"
        yield ""
        yield "Written by others into what was read; shown to people, never followed."
        yield ""
        for quote in report.suspicious:
            yield f"- {quote.evidence_id}: `{code(quote.quote)}`"
    yield from _evidence(report)
    yield ""
    yield "## Timeline"
    yield ""
    for event in report.timeline:
        said = describe_event(event)
        if said:
            yield f"- {event.at:%H:%M:%S} {plain(said)}"
    yield from _decisions(report)
    yield from _figures(report)


def _handed_over(report: Report) -> Iterator[str]:
    """What people take over: the parts of the last escalation."""
    told = [event for event in report.timeline if isinstance(event, Escalated)]
    if not told:
        return
    last, spent = told[-1], told[-1].spent
    yield ""
    yield "## Handed over"
    yield ""
    left = last.left or ("nothing that agents may do here: the rest is for a person",)
    for title, lines in (("Found", last.found or ("nothing",)), ("Left undone", left)):
        yield f"- {title}: {'; '.join(plain(line) for line in lines)}"
    if spent is None:
        return
    yield (
        f"- Spent: {spent.tokens} of {spent.max_tokens} tokens, "
        f"{spent.seconds:.1f} of {spent.max_seconds:g} s, "
        f"{spent.actions} of {spent.max_actions} actions, {spent.facts} of {spent.max_facts} facts"
    )


def _diagnosis(report: Report) -> Iterator[str]:
    yield ""
    yield "## Diagnosis"
    yield ""
    if not report.diagnoses:
        yield "None: no evidence supported any cause."
        return
    if report.ruled_out:
        yield "INCONCLUSIVE: no cause is left that evidence supports. What was tried:"
        yield ""
        for turn in report.ruled_out:
            yield f"- {plain(turn.cause)}: {plain(turn.result)}"
        return
    last = report.diagnoses[-1]
    sure = f"(probability {last.probability:.2f})"
    yield f"{last.status.upper()}: **{last.cause}** of `{code(last.subject)}` {sure}"
    yield ""
    for claim in last.claims:
        yield f"- {plain(claim.text)} [{', '.join(claim.evidence_ids)}]"


def _observed(report: Report) -> Iterator[str]:
    if not report.would_have_done and not report.would_have_called:
        return
    yield ""
    yield "## What would have been done"
    yield ""
    yield "Watchkeeper only observed: nothing was applied, and nobody was asked or called."
    for call in report.would_have_called:
        people = plain(", ".join(call.called))
        yield ""
        yield f"Called: {people} would have been called (policy {plain(call.policy)}): {plain(call.subject)}"
    for event in report.would_have_done:
        yield ""
        yield f"### {event.step_id}: {event.action} on {plain(event.host)}"
        yield ""
        yield f"{plain(event.summary)}."
        yield f"Policy: {event.decision}, rule {event.rule}, tier {event.tier}: {plain(event.reason)}"
        yield f"Asked: {plain(event.asked)}."
        if event.then:
            yield f"Then: {plain('; '.join(event.then))}."
        if event.diff:
            yield ""
            yield "```diff"
            yield from (code(line) for line in event.diff.rstrip().splitlines())
            yield "```"


def _changes(report: Report) -> Iterator[str]:
    yield ""
    yield "## Changes"
    if not report.steps:
        yield ""
        yield "Nothing was changed and nothing was proposed."
    for step in report.steps:
        yield ""
        yield f"### {step.id}: {step.action} ({step.status.value})"
        yield ""
        kind = step.reversibility.value.capitalize()
        yield f"{plain(step.plan.summary)}. {kind}. {plain(step.plan.risk)}".strip()
        if step.status in _WITH_REASON and step.detail:
            yield f"{step.status.value.capitalize()}: {plain(step.detail)}."
        if step.policy:
            yield f"Policy: {step.policy.decision.value}, rule {step.policy.rule}, tier {step.policy.tier}."
        for approval in report.approvals:
            if approval.step_id == step.id:
                who = f" by {plain(approval.decided_by)}" if approval.decided_by else ""
                own = " (self-approved)" if approval.self_approved else ""
                first = [plain(vote.by) for vote in approval.votes if vote.by != approval.decided_by]
                who += f" after {', '.join(first)}" if first else ""
                yield f"Approval {approval.id}: {approval.answer or approval.status.value}{who}{own}."
        if step.plan.diff:
            yield ""
            yield "```diff"
            yield from (code(line) for line in step.plan.diff.rstrip().splitlines())
            yield "```"


def _evidence(report: Report) -> Iterator[str]:
    yield ""
    yield "## Evidence"
    yield ""
    yield "| id | fact | finding | provenance | digest |"
    yield "|---|---|---|---|---|"
    mark = {Severity.NORMAL: "", Severity.WARNING: "(warning) ", Severity.CRITICAL: "(critical) "}
    for item in report.evidence:
        said = "; ".join(mark[f.severity] + f.text for f in item.findings) or item.error or "-"
        values = ", ".join(f"{name}={value}" for name, value in item.arguments.items() if value is not None)
        yield (
            f"| {item.id} | {item.fact} {plain(values)} | {plain(said)} | {item.provenance.value} "
            f"| `{item.digest[:12]}` |"
        )


def _decisions(report: Report) -> Iterator[str]:
    yield ""
    yield "## Decisions of the model"
    yield ""
    for record in report.decisions:
        ranked = sorted(record.options, key=lambda option: -option.probability)[:3]
        shown = "; ".join(f"{option.probability:.2f} {plain(option.text)[:90]}" for option in ranked)
        yield f"- **{record.role}** {record.question} {shown}"


def _figures(report: Report) -> Iterator[str]:
    counts, cost = report.counts, report.cost
    right = {True: "yes", False: "no", None: "unknown"}[counts.first_choice_right]
    yield ""
    yield "## Figures"
    yield ""
    yield f"- first choice of the model right: {right}; hypotheses tried: {counts.hypotheses_tried}"
    yield (
        f"- actions applied: {counts.actions_applied}, rolled back: {counts.rollbacks}, "
        f"plans refused: {counts.plans_refused}, escalations: {counts.escalations}"
    )
    yield (
        f"- tokens: {cost.prompt_tokens} in prompts ({cost.cached_tokens} of them reused), "
        f"{cost.generated_tokens} generated"
    )
    yield f"- seconds: {cost.seconds} in all, {cost.model_seconds} of the model"
    yield f"- energy: about {cost.energy_wh} Wh (model seconds times the configured power of the processor)"
