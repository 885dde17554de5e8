"""The card of a version: what people should know before they rely on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from watchkeeper.tools.durable import private_folder, write_durably
from watchkeeper.tools.text import counted, span_text
from watchkeeper.tools.training.interface import Evaluation
from watchkeeper.tools.versions.bootstrap import interval_of_mean
from watchkeeper.tools.versions.documents import (
    Block,
    Bullets,
    Grid,
    Paragraph,
    Picture,
    PlainDocument,
    Section,
    as_html,
    as_markdown,
)
from watchkeeper.tools.versions.records import Version, VersionRecord

FEW = 30
"""Examples below which a figure says little: the usual rule of thumb for a mean."""

_COUNTS = ("rows", "count", "n", "support")
"""Names under which trainers give the number of examples of a group."""

_PICTURES = (".png", ".svg", ".jpg", ".jpeg")
_FOLDER = "cards"


def card_of(version: Version, *, pictures: str = "") -> PlainDocument:
    """Describe a version.

    Args:
        version: The version.
        pictures: Path from the card to the folder of the version's files, ending in ``/`` where not empty.
    """
    record = version.record
    sections = (
        Section("What it is", tuple(_what(version))),
        Section("Data", (Grid(("", ""), tuple(_data(record))),)),
        Section("Quality", tuple(_quality(record.evaluation))),
        Section("Limits", (Bullets(tuple(limits_of(record))),)),
        Section("How its answers are explained", (Paragraph(_explained(record)),)),
        Section("Energy", (Paragraph(_energy(record)),)),
        Section("Lineage", (Grid(("", ""), tuple(_lineage(record))),)),
        Section("Plots", tuple(_plots(record, pictures))),
    )
    return PlainDocument(
        f"{version.name} version {version.number}", tuple(one for one in sections if one.blocks)
    )


def write_card(version: Version) -> tuple[Path, Path]:
    """Write the card of a version beside its files, as Markdown and HTML; each is whole or as it was.

    Returns:
        Where the two are.

    Raises:
        OSError: If they cannot be written.
    """
    folder = private_folder(version.folder.parent / _FOLDER)
    card = card_of(version, pictures=f"../{version.folder.name}/")
    written = (folder / f"{version.digest}.md", folder / f"{version.digest}.html")
    for path, content in zip(written, (as_markdown(card), as_html(card)), strict=True):
        write_durably(path, content.encode())
    return written


def limits_of(record: VersionRecord) -> Iterator[str]:
    """Say what a version is not for: what its maker said, and what its own figures show."""
    yield from record.notes.limits
    evaluation = record.evaluation
    if evaluation is None:
        yield "It was not evaluated: nothing is known of how good it is."
        return
    if evaluation.rows < FEW:
        yield f"It was scored on {counted(evaluation.rows, 'example')} only: its figures say little."
    overall = evaluation.metrics.get(evaluation.primary)
    for column, groups in sorted(evaluation.groups.items()):
        few = [
            f"{value} ({number})"
            for value, found in sorted(groups.items())
            if (number := _count(found)) is not None and number < FEW
        ]
        if few:
            yield f"By {column}: fewer than {FEW} examples were scored of {', '.join(few)}."
        known = {
            value: found[evaluation.primary] for value, found in groups.items() if _has(found, evaluation)
        }
        if overall is not None and known:
            worst = min(known, key=lambda value: (known[value], value))
            if known[worst] < overall:
                yield (
                    f"By {column}: {evaluation.primary} is lowest for {worst}, {known[worst]:.4g} against "
                    f"{overall:.4g} overall."
                )
    if not evaluation.groups:
        yield "It was not scored by group: it may be worse for some."
    yield "Data that differ from those that it learned from make it worse; watch for drift."


def _what(version: Version) -> Iterator[Block]:
    record = version.record
    if record.notes.purpose:
        yield Paragraph(record.notes.purpose)
    yield Grid(
        ("", ""),
        (
            ("predictor", record.name),
            ("version", str(version.number)),
            ("kind", record.manifest.kind),
            ("trainer", record.manifest.trainer),
            ("registered", f"{record.registered_at:%Y-%m-%d %H:%M:%S} UTC"),
            ("digest", record.digest),
        ),
    )


def _data(record: VersionRecord) -> Iterator[tuple[str, str]]:
    manifest = record.manifest
    yield "SHA-256", manifest.data_sha256 or "not known"
    yield "examples that it learned from", str(manifest.rows)
    if record.evaluation is not None:
        yield "examples that it was scored on", str(record.evaluation.rows)
    if manifest.groups:
        yield "scored by", ", ".join(manifest.groups)


def _quality(evaluation: Evaluation | None) -> Iterator[Block]:
    if evaluation is None:
        yield Paragraph("It was not evaluated.")
        return
    yield Paragraph(f"Versions are compared by {evaluation.primary}; higher is better.")
    metrics = sorted(evaluation.metrics.items(), key=lambda item: (item[0] != evaluation.primary, item[0]))
    yield Grid(("metric", "value"), tuple((name, f"{value:.4g}") for name, value in metrics))
    if evaluation.outcomes:
        low, high = interval_of_mean(evaluation.outcomes)
        mean = sum(evaluation.outcomes) / len(evaluation.outcomes)
        yield Paragraph(
            f"Mean outcome of an example: {mean:.4g} (95 % bootstrap interval {low:.4g} to {high:.4g}, "
            f"{counted(len(evaluation.outcomes), 'example')})."
        )
    for column, groups in sorted(evaluation.groups.items()):
        names = sorted({name for found in groups.values() for name in found} - set(_COUNTS))
        rows = tuple(
            (
                value,
                "not told" if (number := _count(found)) is None else str(number),
                *(f"{found[name]:.4g}" if name in found else "-" for name in names),
            )
            for value, found in sorted(groups.items())
        )
        yield Grid((column, "examples", *names), rows)


def _explained(record: VersionRecord) -> str:
    return record.notes.explanations or "Its answers come without explanations."


def _energy(record: VersionRecord) -> str:
    job = record.job
    if job is None or job.energy_joules is None:
        return "What making it drew was not measured."
    how = f" ({job.energy_source})" if job.energy_source else ""
    watt_hours = job.energy_joules / 3600
    return f"Making it drew {job.energy_joules:.4g} J, {watt_hours:.3g} Wh{how}."


def _lineage(record: VersionRecord) -> Iterator[tuple[str, str]]:
    manifest, job = record.manifest, record.job
    yield "made", f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC"
    yield "seed", str(manifest.seed)
    for name, value in sorted(manifest.parameters.items()):
        yield f"parameter {name}", str(value)
    for name, value in sorted(manifest.versions.items()):
        yield f"library {name}", value
    if job is None:
        return
    yield "job", job.id
    for name, said in (("asked for by", job.requested_by), ("made with Watchkeeper", job.code_version)):
        if said:
            yield name, said
    if job.seconds is not None:
        yield "took", span_text(job.seconds)
    for name, value in sorted(job.hardware.items()):
        yield f"hardware {name}", value


def _plots(record: VersionRecord, pictures: str) -> Iterator[Picture]:
    for path in sorted(record.files):
        if Path(path).suffix.lower() in _PICTURES:
            yield Picture(f"{pictures}{path}", record.notes.plots.get(path, Path(path).stem))


def _count(found: dict[str, float]) -> int | None:
    return next((int(found[name]) for name in _COUNTS if name in found), None)


def _has(found: dict[str, float], evaluation: Evaluation) -> bool:
    return evaluation.primary in found
