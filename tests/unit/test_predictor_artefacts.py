"""Folders of predictors, and the catalog of trainers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from watchkeeper.tools.errors import ArtefactError, UnknownTrainerError
from watchkeeper.tools.predictors import Manifest, open_predictor, read_manifest, write_manifest
from watchkeeper.tools.training import trainer_names, trainer_of

SOME = Manifest(kind="of-nobody", trainer="x", created_at=datetime(2030, 1, 1, tzinfo=UTC), seed=3)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_manifest(tmp_path, SOME)
    assert read_manifest(tmp_path) == SOME
    assert [path.name for path in tmp_path.iterdir()] == ["predictor.json"]


def test_a_folder_without_a_manifest_holds_no_predictor(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"holds no predictor: predictor\.json is missing"):
        read_manifest(tmp_path)


def test_a_damaged_manifest_is_told_with_its_place(tmp_path: Path) -> None:
    write_manifest(tmp_path, SOME)
    (tmp_path / "predictor.json").write_bytes((tmp_path / "predictor.json").read_bytes()[:-20])
    with pytest.raises(ArtefactError, match=r"predictor\.json cannot be read"):
        read_manifest(tmp_path)


def test_an_unknown_kind_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    write_manifest(tmp_path, SOME)
    with pytest.raises(ArtefactError, match="unknown kind 'of-nobody'; known are"):
        open_predictor(tmp_path)


def test_every_trainer_of_the_catalog_is_there_under_its_name() -> None:
    for name in trainer_names():
        trainer = trainer_of(name)
        assert trainer.name == name
        assert trainer.kind
        assert trainer.summary


def test_an_unknown_trainer_is_told_with_those_that_exist() -> None:
    with pytest.raises(UnknownTrainerError, match="no trainer 'magic'; there are"):
        trainer_of("magic")
