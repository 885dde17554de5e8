"""Tuning the agents' own model: it learns from decisions, and is used only where it proved better."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from watchkeeper.agents.drills import drills
from watchkeeper.models.adapter_files import Adapter, digest_adapter
from watchkeeper.models.adapter_store import (
    CARD_NAME,
    EVALUATION_NAME,
    add_adapter,
    check_name,
    installed_adapters,
)
from watchkeeper.models.calibration_cases import LabelledCase
from watchkeeper.models.call_probe import answer_calls, call_questions
from watchkeeper.models.catalog import CatalogEntry
from watchkeeper.models.choice_evaluation import Chosen, answer_cases, paired
from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.errors import AdapterError
from watchkeeper.models.interface import Cancellation, ModelIdentity, Progress
from watchkeeper.models.shipped_adapters import is_shipped
from watchkeeper.runtime.errors import ConfigurationError
from watchkeeper.runtime.tuning_verdict import CARD_HEADING, TuningPlan, TuningVerdict, card, judgement
from watchkeeper.tools.durable import private_folder, write_durably
from watchkeeper.tools.training.folder import Ending, JobFolder
from watchkeeper.tools.training.process import supervise
from watchkeeper.tools.training.spec import JobLimits, JobSpec

FEWEST_JUDGED = 50
"""Held-out decisions below which nothing is said about an adapter."""

_MEMORY = 12 * 10**9
_CHUNK = 8
_TRAINER = "agent-tuning"
_DATA = "decisions.jsonl"
_NAME = "tuned"

M = TypeVar("M", bound=BaseModel)


class _Right(BaseModel):
    """Whether a tool call was right."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    right: bool


@dataclass(frozen=True, slots=True)
class Tuning:
    """One tuning in a folder of its own, which can be stopped at any moment and gone on with.

    Attributes:
        folder: Everything about it.
        name: What the adapter will be called.
        plan: What is to be done.
        cases: Decisions, those that are learned from and held-out ones.
    """

    folder: Path
    name: str
    plan: TuningPlan
    cases: tuple[LabelledCase, ...]

    @classmethod
    def open(cls, home: Path, name: str, plan: TuningPlan, own: Sequence[LabelledCase] = ()) -> Tuning:
        """Begin a tuning, or go on with it.

        Args:
            home: Home of all state.
            name: What the adapter will be called.
            plan: What is to be done.
            own: A site's own decisions, besides the generated ones.

        Raises:
            ConfigurationError: If one was begun with another plan, or there are too few decisions.
            AdapterError: If the name is none.
        """
        check_name(name)
        folder = home / "tuning" / name
        cases = (
            *own,
            *drills(plan.drills, seed=plan.seed),
            *drills(plan.held_out, seed=plan.seed, held_out=True),
        )
        judged = sum(case.held_out for case in cases)
        if judged < FEWEST_JUDGED:
            raise ConfigurationError(
                f"{judged} held-out decisions are too few to judge an adapter: give at least {FEWEST_JUDGED}"
            )
        path = folder / "plan.json"
        data = "".join(case.model_dump_json() + "\n" for case in cases).encode()
        try:
            before = TuningPlan.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            private_folder(folder)
            write_durably(folder / _DATA, data)
            write_durably(path, plan.model_dump_json(indent=2).encode() + b"\n")
        except ValidationError as error:
            raise ConfigurationError(
                f"{path} cannot be read: {error.errors()[0]['msg']}; remove {folder} to begin anew"
            ) from error
        else:
            if before != plan:
                changed = min(
                    key for key in TuningPlan.model_fields if getattr(before, key) != getattr(plan, key)
                )
                raise ConfigurationError(
                    f"tuning {name!r} was begun with {changed} {getattr(before, changed)!r} and not "
                    f"{getattr(plan, changed)!r}: give it so again to go on, or remove {folder} to begin anew"
                )
            if (folder / _DATA).read_bytes() != data:
                raise ConfigurationError(
                    f"tuning {name!r} was begun with other decisions than this release of Watchkeeper makes: "
                    f"remove {folder} to begin anew"
                )
        return cls(folder, name, plan, cases)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no other process work at it meanwhile.

        Raises:
            ConfigurationError: If one does.
        """
        with (self.folder / "lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigurationError(
                    f"tuning {self.name!r} is being worked at by another process: wait for it, stop it, or "
                    "give this one another name"
                ) from error
            yield

    @property
    def judged(self) -> tuple[LabelledCase, ...]:
        """Held-out decisions."""
        return tuple(case for case in self.cases if case.held_out)

    @property
    def job(self) -> JobFolder:
        """The folder of the training."""
        return JobFolder(self.folder / "training")

    def train(
        self,
        *,
        threads: int,
        wanted: Callable[[], bool] = lambda: True,
        progress: Progress | None = None,
    ) -> Ending:
        """Train in a process of its own, from the last checkpoint on.

        Args:
            threads: Processors that it may use.
            wanted: Asked several times a second; the training is stopped once it says no.
            progress: Told of each step.

        Raises:
            JobFolderError: If the folder cannot be written.
        """
        job = self.job
        if not (job.path / "spec.json").is_file():
            job = JobFolder.create(
                job.path,
                JobSpec(
                    name=self.name,
                    trainer=_TRAINER,
                    data=self.folder / _DATA,
                    parameters={"model": self.plan.model},
                    seed=self.plan.seed,
                    limits=JobLimits(threads=threads, memory=_MEMORY),
                    launcher="python",
                ),
            )
        if job.artefacts.is_dir():
            return Ending(attempt=job.progress.attempt, how="done")

        def tell() -> None:
            if progress:
                state = job.progress
                progress(f"train: {state.what or 'loading the model'}", round(1000 * state.done), 1000)

        def watched() -> bool:
            tell()
            return wanted()

        ending = supervise(job, job.progress.attempt + 1, wanted=watched)
        tell()  # its last steps may have come between two looks
        return ending

    def judge(
        self, engine: LocalEngine, *, progress: Progress | None = None, cancel: Cancellation | None = None
    ) -> TuningVerdict:
        """Ask the model all held-out decisions and tool calls without and with what was trained.

        What was answered before a stop is not asked again.

        Args:
            engine: The model as it is served.
            progress: Told of each question.
            cancel: Raised to end it.

        Raises:
            AdapterError: If what was trained does not fit the model.
            CancelledError: If it was cancelled.
        """
        if _NAME not in engine.adapters:
            engine.load_adapter(_NAME, self.job.artefacts)
        choices: list[list[Chosen]] = []
        calls: list[list[_Right]] = []
        questions = call_questions(self.plan.calls, self.plan.seed)
        for way, adapter in (("without", None), ("with", _NAME)):

            def choose(some: Sequence[LabelledCase], adapter: str | None = adapter) -> list[Chosen]:
                return list(answer_cases(engine, some, adapter=adapter, cancel=cancel))

            def call(some: Sequence[object], adapter: str | None = adapter) -> list[_Right]:
                right = answer_calls(engine, some, adapter=adapter, cancel=cancel)  # type: ignore[arg-type]
                return [_Right(right=one) for one in right]

            # Answers of an adapter are its own: one that was trained anew is asked anew.
            by = way if adapter is None else f"{way}-{self.digest[:12]}"
            choices.append(
                self._answered(f"choices-{by}", engine.identity, self.judged, Chosen, choose, progress)
            )
            calls.append(self._answered(f"calls-{by}", engine.identity, questions, _Right, call, progress))
        return self._verdict(engine.identity.quantization, choices, calls)

    @property
    def digest(self) -> str:
        """SHA-256 of the adapter that was trained."""
        return digest_adapter(self.job.artefacts)

    def install(self, entry: CatalogEntry, verdict: TuningVerdict, home: Path | None = None) -> Adapter:
        """Keep the adapter with its card beside its model, if it has earned that.

        Raises:
            AdapterError: If it has not, or one of that name is there.
        """
        if not verdict.earned:
            raise AdapterError(f"adapter {self.name!r} is not installed: {verdict.reason}")
        write_durably(
            self.job.artefacts / EVALUATION_NAME, verdict.model_dump_json(indent=2).encode() + b"\n"
        )
        path = self.job.artefacts / CARD_NAME
        head, _, _ = path.read_text(encoding="utf-8").partition(CARD_HEADING)
        write_durably(path, (head.rstrip() + "\n\n" + card(verdict)).encode())
        return add_adapter(entry, self.name, self.job.artefacts, home)

    def refuse_taken_name(self, entry: CatalogEntry, home: Path | None = None) -> None:
        """Refuse a name that an installed adapter has, before anything is computed.

        Raises:
            AdapterError: If there is one.
        """
        folder = installed_adapters(entry, home).get(self.name)
        if folder is not None and is_shipped(folder):
            raise AdapterError(
                f"adapter {self.name!r} of {entry.id!r} comes with Watchkeeper: take another name, and "
                "name it with `adapter:` in config.yaml"
            )
        if folder is not None:
            raise AdapterError(
                f"{entry.id!r} has an adapter {self.name!r} already: remove it with "
                f"'watchkeeper models adapters remove {self.name}', or take another name"
            )

    def _answered(
        self,
        name: str,
        identity: ModelIdentity,
        asked: Sequence[object],
        kind: type[M],
        ask: Callable[[Sequence[object]], list[M]] | Callable[[Sequence[LabelledCase]], list[M]],
        progress: Progress | None,
    ) -> list[M]:
        """Ask what was not asked yet; answers are kept a few at a time."""
        weights = hashlib.sha256(f"{identity.digest} {identity.quantization}".encode()).hexdigest()[:12]
        path = self.folder / f"{name}-{weights}.jsonl"
        content = path.read_text(encoding="utf-8") if path.exists() else ""
        # A line that was cut off is asked again.
        answers = [kind.model_validate_json(line) for line in content.split("\n")[:-1]][: len(asked)]
        write_durably(path, "".join(answer.model_dump_json() + "\n" for answer in answers).encode())
        with path.open("a", encoding="utf-8") as file:
            while len(answers) < len(asked):
                if progress:
                    progress(f"judge: {name.replace('-', ' ')}", len(answers), len(asked))
                some = ask(asked[len(answers) : len(answers) + _CHUNK])  # type: ignore[arg-type]
                file.writelines(answer.model_dump_json() + "\n" for answer in some)
                file.flush()
                answers += some
        return answers

    def _verdict(
        self, quantization: str, choices: Sequence[Sequence[Chosen]], calls: Sequence[Sequence[_Right]]
    ) -> TuningVerdict:
        before, after = choices
        chosen = paired([answer.right for answer in before], [answer.right for answer in after])
        called = paired([answer.right for answer in calls[0]], [answer.right for answer in calls[1]])
        topics: dict[str, tuple[int, int, int]] = {}
        for first, second in zip(before, after, strict=True):
            count, one, two = topics.get(first.topic, (0, 0, 0))
            topics[first.topic] = (count + 1, one + first.right, two + second.right)
        earned, reason = judgement(chosen, called)
        return TuningVerdict(
            plan=self.plan,
            quantization=quantization,
            learned=len(self.cases) - len(self.judged),
            choices=chosen,
            calls=called,
            topics=dict(sorted(topics.items())),
            earned=earned,
            reason=reason,
        )
