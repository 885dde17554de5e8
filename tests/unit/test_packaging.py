"""What is packaged is what is there, and every package of the environment is pinned and needed."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ROOMS = ("watchkeeper", "models", "tools", "agents", "runtime")
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = SETUP["tool"]["setuptools"]


def package_of(folder: Path) -> str:
    """Name under which a folder is imported."""
    parts = folder.relative_to(ROOT).parts
    return ".".join(parts if parts[0] == "watchkeeper" else ("watchkeeper", *parts))


def inits() -> list[Path]:
    """The `__init__.py` of every package."""
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("__init__.py"))


def test_every_package_is_listed_and_every_listed_one_is_there() -> None:
    assert set(SETUPTOOLS["packages"]) == {package_of(path.parent) for path in inits()}
    assert len(SETUPTOOLS["packages"]) == len(set(SETUPTOOLS["packages"]))


def test_every_folder_with_code_is_a_package() -> None:
    packages = {path.parent for path in inits()}
    code = {path.parent for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert code == packages


def test_every_file_that_is_not_code_is_packaged() -> None:
    packages = {path.parent for path in inits()}
    patterns: dict[str, list[str]] = SETUPTOOLS["package-data"]
    packaged: set[Path] = set()
    for name, globs in patterns.items():
        (folder,) = [package for package in packages if package_of(package) == name]
        for glob in globs:
            found = set(folder.glob(glob))
            assert found, f"{glob!r} of {name!r} matches no file"
            packaged |= found
    there = {
        path
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        # Beside compiled Python, numba keeps its kernels there.
        if path.is_file() and path.suffix != ".py" and path.parent.name != "__pycache__"
    }
    assert packaged == there


@pytest.mark.parametrize("path", inits(), ids=package_of)
def test_every_package_says_what_it_is(path: Path) -> None:
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert said
    assert len(said.splitlines()[0].split()) > 3


def pins() -> dict[str, str]:
    """Version of every package in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    exact = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line) for line in lines if line[0] != "#"]
    assert all(exact), "every line pins one version of one package, and names no place to get it from"
    return {canonicalize_name(match[1]): match[2] for match in exact if match}


def needed() -> dict[str, str]:
    """Version of every package that Watchkeeper and its tests need here, directly or not."""
    found: dict[str, str] = {}
    done: set[tuple[str, str]] = set()
    extras = SETUP["project"]["optional-dependencies"].values()
    own = [*SETUP["project"]["dependencies"], *(text for extra in extras for text in extra)]
    own = [text for text in own if Requirement(text).name != "watchkeeper"]
    open_ = [
        (canonicalize_name(Requirement(text).name), extra)
        for text in (*own, "setuptools")
        for extra in ("", *Requirement(text).extras)
    ]
    while open_:
        name, extra = open_.pop()
        if (name, extra) in done:
            continue
        done.add((name, extra))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            pytest.fail(f"{name} is needed and not installed: run `make dev`")
        found[name] = package.version.partition("+")[0]
        for text in package.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                inner = canonicalize_name(requirement.name)
                open_ += [(inner, one) for one in ("", *requirement.extras)]
    return found


def test_every_package_is_pinned_at_the_version_that_is_installed() -> None:
    pinned = pins()
    # A CUDA build of torch pins what it brings along by itself.
    by_torch = re.compile(r"nvidia-|cuda-|triton$")
    found = {name: version for name, version in needed().items() if not by_torch.match(name)}
    assert {name: pinned.get(name) for name in found} == found


def test_nothing_is_pinned_that_nothing_needs() -> None:
    assert pins().keys() - needed().keys() == set()
