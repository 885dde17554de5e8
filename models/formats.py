"""Telling a sound weights file from a damaged or dangerous one before anything parses it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from watchkeeper.models.errors import IntegrityError

_PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
_ZIP_MAGIC = b"PK\x03\x04"
_GGUF_MAGIC = b"GGUF"
_GGUF_VERSIONS = (2, 3)
# The reference implementation refuses longer headers too.
_LONGEST_HEADER = 100_000_000


def refuse_pickle(path: Path) -> None:
    """Refuse a file that would run code when it is loaded.

    Raises:
        IntegrityError: If the name or the content is a pickle's (a bare one, or a zip of torch's).
    """
    with path.open("rb") as stream:
        start = stream.read(4)
    is_pickle = start[:1] == b"\x80" and start[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}
    if path.suffix.lower() in _PICKLE_SUFFIXES or is_pickle or start == _ZIP_MAGIC:
        message = f"{path} is a pickle, which can run code when it is loaded: use safetensors or GGUF instead"
        raise IntegrityError(message)


def check_gguf(path: Path) -> None:
    """Check that a file begins as a GGUF of a known version.

    Raises:
        IntegrityError: If it does not.
    """
    refuse_pickle(path)
    with path.open("rb") as stream:
        start = stream.read(24)
    if len(start) < 24 or start[:4] != _GGUF_MAGIC:
        message = f"{path} is no GGUF file (it begins with {start[:4]!r}): fetch it again"
        raise IntegrityError(message)
    (version,) = struct.unpack_from("<I", start, 4)
    if version not in _GGUF_VERSIONS:
        message = f"{path} is GGUF version {version}; versions 2 and 3 can be read"
        raise IntegrityError(message)


def check_safetensors(path: Path) -> None:
    """Check that a safetensors file is as long as its header says.

    Raises:
        IntegrityError: If it is truncated or no safetensors file.
    """
    refuse_pickle(path)
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, _LONGEST_HEADER):
            message = f"{path} is truncated or no safetensors file ({size:,} bytes): fetch it again"
            raise IntegrityError(message)
        try:
            header = json.loads(stream.read(length))
            data = max(
                (entry["data_offsets"][1] for name, entry in header.items() if name[:2] != "__"), default=0
            )
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            message = f"{path} has an unreadable safetensors header: fetch it again"
            raise IntegrityError(message) from error
    expected = 8 + length + data
    if size != expected:
        message = f"{path} is damaged: {size:,} bytes, and its header promises {expected:,}: fetch it again"
        raise IntegrityError(message)


def check_folder(folder: Path) -> None:
    """Check a folder of the user's own before it is loaded.

    Raises:
        IntegrityError: If it lacks a configuration, a tokenizer or sound safetensors.
    """
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            message = f"{folder} holds no {name}: save the model with save_pretrained, tokenizer included"
            raise IntegrityError(message)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in _PICKLE_SUFFIXES:
                refuse_pickle(path)
        message = f"{folder} holds no safetensors: the weights must have that format"
        raise IntegrityError(message)
    for path in files:
        check_safetensors(path)
