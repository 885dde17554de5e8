"""Fetching from the Hugging Face Hub over HTTP, resumable, with short time-outs.

The Hub's own client retries a name that does not resolve for half a minute; behind a firewall that is
the normal case, and the next source is waiting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watchkeeper.models.catalog import HubSource, WeightsFile
from watchkeeper.models.errors import DownloadError

if TYPE_CHECKING:
    import httpx

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0
_TRUE = frozenset({"1", "true", "yes", "on"})
_WANTED = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab"
    r"|model\.safetensors\.index)\.json|[\w.-]+\.safetensors|chat_template\.jinja|merges\.txt|tokenizer\.model"
)

Advance = Callable[[int], None]


def hub_is_offline() -> bool:
    """Whether the environment forbids to ask the Hub (``HF_HUB_OFFLINE``)."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in _TRUE


def list_files(source: HubSource) -> tuple[WeightsFile, ...]:
    """List what a model needs of a repository: configuration, tokenizer and safetensors.

    Returns:
        The files; ``sha256`` is empty for small ones, whose content the commit alone pins.

    Raises:
        DownloadError: If the Hub cannot be asked.
    """
    import httpx

    url = f"{_endpoint()}/api/models/{source.repository}/tree/{source.revision}"
    try:
        with _client() as client:
            response = client.get(url)
            response.raise_for_status()
            tree: list[dict[str, Any]] = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise DownloadError(_describe(url, error)) from error
    return tuple(
        WeightsFile(item["path"], item["size"], item.get("lfs", {}).get("oid", ""))
        for item in tree
        if item.get("type") == "file" and _WANTED.fullmatch(item["path"])
    )


def fetch(source: HubSource, file: WeightsFile, destination: Path, advance: Advance | None = None) -> None:
    """Fetch one file, continuing where an interrupted attempt ended; the caller checks its digest.

    Args:
        source: Repository and revision.
        file: The file; its size bounds what is read.
        destination: Where it goes; the unfinished file lies beside it as ``.part``.
        advance: Told the number of bytes that came in.

    Raises:
        DownloadError: If it cannot be fetched whole.
    """
    import httpx

    url = f"{_endpoint()}/{source.repository}/resolve/{source.revision}/{file.name}"
    partial = destination.with_name(destination.name + ".part")
    done = partial.stat().st_size if partial.exists() else 0
    if done > file.size:
        partial.unlink()
        done = 0
    if advance and done:
        advance(done)
    try:
        if done < file.size:
            _receive(url, partial, done, file.size, advance)
    except httpx.HTTPError as error:
        raise DownloadError(_describe(url, error)) from error
    found = partial.stat().st_size if partial.exists() else 0
    if found != file.size:
        message = f"{url} ended after {found:,} of {file.size:,} bytes; pull again to continue"
        raise DownloadError(message)
    partial.replace(destination)


def _receive(url: str, partial: Path, done: int, size: int, advance: Advance | None) -> None:
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    with _client() as client, client.stream("GET", url, headers=headers) as response:
        response.raise_for_status()
        resumed = done > 0 and response.status_code == 206
        if advance and done and not resumed:
            advance(-done)
        count = done if resumed else 0
        with partial.open("ab" if resumed else "wb") as stream:
            # As they come in: what waits for a block to fill is lost when the connection breaks.
            for block in response.iter_raw():
                count += len(block)
                if count > size:
                    message = f"{url} sent more than the {size:,} bytes it should have"
                    raise DownloadError(message)
                stream.write(block)
                if advance:
                    advance(len(block))
            stream.flush()
            os.fsync(stream.fileno())


def _client() -> httpx.Client:
    import httpx

    token = os.environ.get("HF_TOKEN")
    return httpx.Client(
        follow_redirects=True,
        timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
        # httpx drops this header when a redirect leaves the host.
        headers={"Authorization": f"Bearer {token}"} if token else {},
    )


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _describe(url: str, error: Exception) -> str:
    return f"{url}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
