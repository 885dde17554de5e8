"""The model registry of MLflow in a SQLite file: no server, no network, nothing told to anybody.

MLflow is imported when a store is opened. Everything that is specific to it is in this module.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from watchkeeper.tools.errors import MissingExtraError, VersionError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_DIGEST_TAG = "watchkeeper.digest"
_MOST = 1000
"""Versions of one predictor that are listed at once, as MLflow pages them."""

_UNNAMED = re.compile(r"[^A-Za-z0-9_\-. :]")


@dataclass(frozen=True, slots=True)
class Entry:
    """A version as MLflow knows it: its number, its tags, and the run that holds its lineage."""

    number: int
    tags: Mapping[str, str]
    run_id: str


@dataclass(frozen=True, slots=True)
class Model:
    """A registered model: the aliases of its versions, and its tags."""

    aliases: Mapping[str, int]
    tags: Mapping[str, str]


class MlflowStore:
    """Registered models of one SQLite file.

    Args:
        path: The file; made where it is not there.

    Raises:
        MissingExtraError: If MLflow is not installed.
        VersionError: If the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        _import_mlflow()
        from mlflow import MlflowClient

        address = f"sqlite:///{path.absolute()}"
        with self._translated():
            self._client = MlflowClient(tracking_uri=address, registry_uri=address)
            self._client.search_registered_models(max_results=1)

    def names(self) -> tuple[str, ...]:
        """Return the names of all models."""
        with self._translated():
            found = self._client.search_registered_models(max_results=_MOST)
            return tuple(sorted(model.name for model in found))

    def model(self, name: str) -> Model | None:
        """Return a model with its aliases and tags, as they are at one moment; None where there is none."""
        from mlflow.exceptions import MlflowException

        with self._translated():
            try:
                found = self._client.get_registered_model(name)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise
            aliases = {str(alias): int(number) for alias, number in dict(found.aliases).items()}
            return Model(aliases, {str(key): str(value) for key, value in dict(found.tags).items()})

    def entries(self, name: str) -> tuple[Entry, ...]:
        """Return the versions of a model, the oldest first."""
        with self._translated():
            found: list[ModelVersion] = []
            token: str | None = None
            while True:
                page = self._client.search_model_versions(
                    f"name = '{name}'", max_results=_MOST, page_token=token
                )
                found += page
                token = page.token
                if not token:
                    break
            return tuple(sorted((_entry(one) for one in found), key=lambda entry: entry.number))

    def entry_of(self, name: str, digest: str) -> Entry | None:
        """Return the version of a model with these files, or None."""
        with self._translated():
            found = self._client.search_model_versions(
                f"name = '{name}' and tag.`{_DIGEST_TAG}` = '{digest}'", max_results=1
            )
            return _entry(found[0]) if found else None

    def add(
        self,
        name: str,
        *,
        source: Path,
        digest: str,
        tags: Mapping[str, str],
        parameters: Mapping[str, str],
        metrics: Mapping[str, float],
    ) -> Entry:
        """Add a version, and a run with its parameters and metrics; what is there already stays as it is.

        Each part is found again by the digest, so that a call after a crash goes on where it was cut off.
        """
        with self._translated():
            if self.model(name) is None:
                self._client.create_registered_model(name)
            known = self.entry_of(name, digest)
            if known is not None:
                return known
            run_id = self._run(name, digest, tags, parameters, metrics)
            made = self._client.create_model_version(
                name,
                source=source.absolute().as_uri(),
                run_id=run_id,
                tags={**tags, _DIGEST_TAG: digest},
            )
            return _entry(made)

    def run_of(self, entry: Entry) -> tuple[dict[str, str], dict[str, float]]:
        """Return the parameters and the metrics of a version's run."""
        with self._translated():
            data = self._client.get_run(entry.run_id).data
            return dict(data.params), dict(data.metrics)

    def set_tag(self, name: str, key: str, value: str) -> None:
        """Set a tag of a model."""
        with self._translated():
            self._client.set_registered_model_tag(name, key, value)

    def set_alias(self, name: str, alias: str, number: int | None) -> None:
        """Let an alias name a version, or none."""
        with self._translated():
            if number is None:
                self._client.delete_registered_model_alias(name, alias)
            else:
                self._client.set_registered_model_alias(name, alias, str(number))

    def _run(
        self,
        name: str,
        digest: str,
        tags: Mapping[str, str],
        parameters: Mapping[str, str],
        metrics: Mapping[str, float],
    ) -> str:
        from mlflow.entities import Metric, Param, RunTag

        experiment = self._client.get_experiment_by_name(name)
        experiment_id = (
            self._client.create_experiment(name, artifact_location=self._path.parent.absolute().as_uri())
            if experiment is None
            else experiment.experiment_id
        )
        found = self._client.search_runs([experiment_id], f"tags.`{_DIGEST_TAG}` = '{digest}'", max_results=1)
        run_id: str = (
            found[0].info.run_id
            if found
            else self._client.create_run(experiment_id, tags={_DIGEST_TAG: digest}).info.run_id
        )
        self._client.log_batch(
            run_id,
            metrics=[Metric(_named(key), value, 0, 0) for key, value in metrics.items()],
            params=[Param(_named(key), value[:6000]) for key, value in parameters.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        self._client.set_terminated(run_id)
        return run_id

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError) as error:
            said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise VersionError(f"the versions in {str(self._path)!r} cannot be used: {said:.300}") from error


def _import_mlflow() -> None:
    # Before the import: MLflow reads them then.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    try:
        import mlflow  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mlflow":
            raise
        raise MissingExtraError(
            "versions of predictors need the extra 'registry': pip install 'watchkeeper[registry]'"
        ) from None


def _entry(found: ModelVersion) -> Entry:
    tags = {str(key): str(value) for key, value in dict(found.tags).items()}
    return Entry(int(found.version), tags, str(found.run_id or ""))


def _named(key: str) -> str:
    """Return a key as MLflow takes it; where it was changed for that, its digest tells it from others."""
    taken = _UNNAMED.sub("_", key)[:230]
    return taken if taken == key else f"{taken} {hashlib.sha256(key.encode()).hexdigest()[:8]}"
