"""The demo leaves alone what it finds of real hosts."""

from pathlib import Path

import pytest

from watchkeeper.demo.errors import DemoError
from watchkeeper.demo.runner import free_host
from watchkeeper.demo.site import Site


def test_a_real_host_of_a_drawn_name_keeps_its_state(tmp_path: Path) -> None:
    kept, seed = free_host(tmp_path, 7)
    assert (kept, seed) == (tmp_path / Site.drawn(7, Path("/"), 1).host, 7)
    # What a demo left behind is a demo's to use and to remove again.
    assert free_host(tmp_path, 7) == (kept, 7)
    for mine in kept.iterdir():
        mine.unlink()
    (kept / "quarantine").mkdir()
    other, seed = free_host(tmp_path, 7)
    assert other != kept
    assert other == tmp_path / Site.drawn(seed, Path("/"), 1).host


def test_a_demo_without_a_free_name_is_refused(tmp_path: Path) -> None:
    for seed in range(1000):
        (tmp_path / Site.drawn(seed, Path("/"), 1).host).mkdir(exist_ok=True)
    with pytest.raises(DemoError, match="no free name"):
        free_host(tmp_path, 0)
