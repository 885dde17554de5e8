"""Nodes of the lifecycle that judge: data, training, scores, comparison, bias, explanations and the card."""

from __future__ import annotations

from typing import Any

from langgraph.types import interrupt
from pydantic import ValidationError

from watchkeeper.runtime.job_lineage import job_record
from watchkeeper.runtime.lifecycle_rules import Retraining
from watchkeeper.runtime.lifecycle_run import LifecycleRun
from watchkeeper.runtime.lifecycle_scoring import (
    Classifies,
    answers_on,
    bias_of,
    explanations_of,
    finder_of,
    judge_comparison,
    lacks_floor,
)
from watchkeeper.runtime.lifecycle_state import Change, LifecycleState, Outcome, Update, ends
from watchkeeper.runtime.policy_bias import MeasuredBias
from watchkeeper.tools.durable import write_durably
from watchkeeper.tools.errors import MissingExtraError, ToolError
from watchkeeper.tools.predictors import read_manifest
from watchkeeper.tools.predictors.bias import require_fairness
from watchkeeper.tools.predictors.bias_report import Verdict
from watchkeeper.tools.text import counted
from watchkeeper.tools.training.checking import check_spec
from watchkeeper.tools.training.interface import Evaluation, Trainer
from watchkeeper.tools.training.record import TrainingStatus
from watchkeeper.tools.training.shared_rows import count_shared_rows
from watchkeeper.tools.versions import Notes
from watchkeeper.tools.versions.compare import Verdict as CompareVerdict
from watchkeeper.tools.versions.compare import compare, score
from watchkeeper.tools.versions.files import digest_of, file_digests

_EXPLAINED = "each piece of the text is left out in turn; what the answer's log-odds lose is its worth"


class Judging:
    """The nodes that look and change nothing but the records of what they found."""

    def __init__(self, run: LifecycleRun) -> None:
        self._run = run
        self._request: Retraining = run.request
        self._find = finder_of(run.request.job)

    def check(self, state: LifecycleState) -> Update:
        """Look the data over before anything is trained."""
        self._run.enter(state, "check data")
        request, rules = self._request, self._request.data
        try:
            check_spec(request.job, elsewhere=self._run.context.journal.store.shared)
            if missing := lacks_floor(request):
                self._run.judged(state, "check data", missing, ok=False)
                return ends(Outcome.ESCALATED, missing)
            trainer, parameters = self._trainer()
            if isinstance(trainer, Classifies) and self._groups(parameters):
                require_fairness()
            data = trainer.inspect(request.job.data, parameters)
            held_out = trainer.look_over(request.held_out, parameters)
            shared, of = count_shared_rows(request.job.data, request.held_out)
        except MissingExtraError as error:
            self._run.judged(state, "check data", str(error), ok=False)
            return ends(Outcome.ESCALATED, str(error))
        except ValidationError as error:
            return self._bad_data(state, f"parameters: {error.errors()[0]['msg']}")
        except ToolError as error:
            return self._bad_data(state, str(error))
        except OSError as error:
            return self._bad_data(state, f"{str(error.filename)!r}: {error.strerror}")
        if data.sha256 == held_out.sha256:
            return self._bad_data(state, "the held-out data are those to learn from: part them first")
        for what, found, least in (("data", data, rules.rows), ("held-out data", held_out, rules.held_out)):
            if found.rows < least:
                return self._bad_data(
                    state, f"the {what} have {counted(found.rows, 'row')}, and {least} are needed"
                )
        if shared > rules.shared * of:
            return self._bad_data(
                state,
                f"{shared} of {counted(of, 'held-out row')} stand in the data to learn from, too, and "
                f"{rules.shared:.0%} may: part them, or raise data.shared where rows repeat by nature",
            )
        try:
            champion = self._run.champion()
        except ToolError as error:
            return ends(Outcome.ESCALATED, str(error))
        known = f", {shared} of them among those to learn from" if shared else ""
        self._run.judged(
            state,
            "check data",
            f"{counted(data.rows, 'row')} to learn from, {held_out.rows} held out{known}",
            data=data.sha256,
            held_out=held_out.sha256,
            rows=data.rows,
            held_out_rows=held_out.rows,
            shared_rows=shared,
            notes=[*data.notes],
        )
        return {
            "verdict": "propose",
            "change": Change.TRAIN.value,
            "repeat": 0,
            "champion": None if champion is None else champion.number,
        }

    def submitted(self, state: LifecycleState) -> Update:
        """Find the job that the step submitted."""
        step = self._run.context.journal.steps.get(state["steps"][Change.TRAIN])
        job = self._run.jobs().submitted_under(step.plan.key)
        if job is None:
            return ends(Outcome.ESCALATED, "the training job that was submitted is not there any more")
        # What it was submitted for shows later; that it was is all that this step did.
        self._run.changes.verify(step.id)
        return {"job": job.id, "wait": {"wait": "job", "job": job.id}, "verdict": "wait"}

    def training(self, state: LifecycleState) -> Update:
        """Wait for the end of the training job; this node does nothing else."""
        interrupt(state["wait"])
        return {"verdict": "trained"}

    def trained(self, state: LifecycleState) -> Update:
        """Look how the training job ended."""
        job = self._run.jobs().find(state["job"])
        if job is None:
            said = f"training job {state['job']} was removed before anything was made of it"
            self._run.judged(state, "train", said, ok=False, job=state["job"])
            return ends(Outcome.TRAINING_FAILED, said)
        if job.status.live:
            return {"verdict": "wait"}
        seconds = self._run.jobs().folder(job.id).progress.seconds
        if job.status is not TrainingStatus.DONE:
            said = f"training job {job.id} is {job.status.value}{job.how and f' ({job.how})'}: {job.reason}"
            self._run.judged(state, "train", said, ok=False, job=job.id)
            refused = Outcome.BAD_DATA if job.how == "data" else Outcome.TRAINING_FAILED
            return ends(refused, said)
        self._run.judged(state, "train", f"training job {job.id} took {seconds:.1f} s", job=job.id)
        return {"verdict": "evaluate"}

    def evaluate(self, state: LifecycleState) -> Update:
        """Score what was trained on the held-out data."""
        self._run.enter(state, "evaluate")
        folder = self._run.artefacts(state)
        try:
            manifest = read_manifest(folder)
            checked = self._run.finding(state, "check data")
            known = None if checked is None else checked.values.get("data")
            if manifest.data_sha256 and manifest.data_sha256 != known:
                return ends(Outcome.BAD_DATA, "the data were changed between the check and the training")
            digest = digest_of(file_digests(folder))
            found = self._score(state)
        except ToolError as error:
            return ends(Outcome.TRAINING_FAILED, f"what was trained cannot be scored: {error}")
        self._run.judged(
            state,
            "evaluate",
            f"{found.primary} {found.metrics[found.primary]:.4g} on {counted(found.rows, 'held-out row')}",
            digest=digest,
            primary=found.primary,
            metrics=dict(found.metrics),
        )
        return {"digest": digest, "verdict": "compare"}

    def compare(self, state: LifecycleState) -> Update:
        """Hold it against the champion, on the same held-out data."""
        self._run.enter(state, "compare")
        rules = self._request.compare
        found = self._score(state)
        if state["champion"] is None:
            reached = found.metrics[found.primary]
            ok = rules.least is None or reached >= rules.least
            said = "no version answers yet, so there is nothing to be compared with"
            if not ok:
                said = f"{found.primary} is {reached:.4g}, and {rules.least:g} is wanted of the first version"
            self._run.judged(state, "compare", said, ok=ok)
            return {"verdict": "bias"} if ok else ends(Outcome.WORSE, said)
        try:
            versions = self._run.versions()
            champion = versions.get(self._request.predictor, state["champion"])
            versions.check(champion)
            before = score(champion.folder, self._request.held_out, self._find, beside=True)
            compared = compare(before, found, confidence=rules.confidence)
        except ToolError as error:
            return ends(Outcome.ESCALATED, f"the champion cannot be compared with: {error}")
        judgement = judge_comparison(compared, rules)
        self._run.judged(
            state,
            "compare",
            judgement.reason,
            ok=judgement.ok,
            comparison=compared.model_dump(mode="json"),
            champion=champion.number,
        )
        if judgement.ok:
            return {"verdict": "bias"}
        worse = compared.verdict is CompareVerdict.WORSE
        return ends(Outcome.WORSE, judgement.reason if worse else f"not better: {judgement.reason}")

    def bias(self, state: LifecycleState) -> Update:
        """Compare how groups are answered; the policy says how differently they may be."""
        self._run.enter(state, "test for bias")
        named = self._request.bias.columns
        limits = self._run.context.site.policy.bias.of(self._request.predictor)
        try:
            folder, held_out = self._run.artefacts(state), self._request.held_out
            answers = answers_on(folder, held_out, self._find, named, also=limits.columns)
            found = () if answers is None else bias_of(answers, limits)
        except MissingExtraError as error:
            return ends(Outcome.ESCALATED, f"it cannot be tested for bias: {error}")
        except ToolError as error:
            return ends(Outcome.BAD_DATA, f"it cannot be tested for bias: {error}")
        measured = MeasuredBias.of(self._request.predictor, found, limits, {*named, *limits.columns})
        answer = limits.judge(measured)
        said = answer.reason
        if not answer.columns:
            why = "it gives no labels" if answers is None else "no column tells groups apart"
            said = f"not tested: {why}"
        self._run.judged(
            state,
            "bias",
            said,
            ok=not answer.refused,
            columns=[one.model_dump(mode="json") for one in found],
            measured=measured.bound(),
            limits=limits.told(),
        )
        if answer.refused:
            sure = "differ" if answer.verdict is Verdict.BEYOND else "may differ"
            return ends(Outcome.BIASED, f"groups {sure} by more than the policy allows ({said})")
        return {"verdict": "explain"}

    def explain(self, state: LifecycleState) -> Update:
        """Explain answers to a few held-out rows, for people."""
        folder, held_out = self._run.artefacts(state), self._request.held_out
        try:
            answers = answers_on(folder, held_out, self._find)
            most = self._request.explained
            found = (
                [] if answers is None else explanations_of(folder, held_out, answers, self._find, most=most)
            )
        except ToolError as error:
            self._run.judged(state, "explain", f"not explained: {error}")
            return {"verdict": "card"}
        self._run.judged(
            state,
            "explain",
            f"{counted(len(found), 'answer')} explained"
            if found
            else "answers of its kind are not explained",
            answers=[one.told() for one in found],
        )
        return {"verdict": "card"}

    def card(self, state: LifecycleState) -> Update:
        """Keep it as a version with its card; the files must be those that were judged."""
        self._run.enter(state, "card")
        run, folder = self._run, self._run.artefacts(state)
        try:
            if digest_of(file_digests(folder)) != state["digest"]:
                return ends(
                    Outcome.CHANGED, "the files of what was trained were changed since they were judged"
                )
            if self._held_out_moved(state):
                return ends(
                    Outcome.CHANGED, "the held-out data were changed since they were checked: retrain anew"
                )
            job = run.job(state)
            explained = run.finding(state, "explain")
            notes = Notes(
                purpose=self._request.purpose,
                explanations=_EXPLAINED if explained and explained.values.get("answers") else "",
                limits=self._limits(state),
                label_column=self._request.label_column,
            )
            watts = run.context.settings.cpu_watts
            lineage = job_record(job, run.jobs().folder(job.id), cpu_watts=watts)
            version = run.versions().register(
                self._request.predictor, folder, self._score(state), lineage, notes
            )
        except ToolError as error:
            return ends(Outcome.ESCALATED, f"it cannot be kept as a version: {error}")
        if version.digest != state["digest"]:
            return ends(Outcome.CHANGED, "the files of what was trained were changed since they were judged")
        run.judged(
            state,
            "card",
            f"version {version.number} of {version.name} ({version.digest[:12]})",
            version=version.number,
            digest=version.digest,
        )
        change = Change.TRIAL if self._request.trial.labels else Change.PROMOTE
        return {"version": version.number, "change": change.value, "repeat": 0, "verdict": "propose"}

    def _trainer(self) -> tuple[Trainer[Any], Any]:
        """Return the job's trainer and the parameters that it is given."""
        trainer = self._find(self._request.job.trainer)
        return trainer, trainer.parse_parameters(self._request.job.parameters)

    def _groups(self, parameters: Any) -> set[str]:
        """Return the columns by which groups may come to be compared."""
        limits = self._run.context.site.policy.bias.of(self._request.predictor)
        return {*self._request.bias.columns, *limits.columns, *getattr(parameters, "groups", ())}

    def _held_out_moved(self, state: LifecycleState) -> bool:
        """Whether champion and challenger may have been scored on other rows than were looked over."""
        checked = self._run.finding(state, "check data")
        try:
            trainer, parameters = self._trainer()
            found = trainer.look_over(self._request.held_out, parameters).sha256
        except (ToolError, OSError):
            return True
        return checked is None or found != checked.values["held_out"]

    def _score(self, state: LifecycleState) -> Evaluation:
        """Score what was trained, once: it is kept beside the lifecycle's job.

        Raises:
            ToolError: If it cannot be scored.
        """
        path = self._run.folder(state["incident"]) / "evaluation.json"
        if path.exists():
            return Evaluation.model_validate_json(path.read_bytes())
        found = score(self._run.artefacts(state), self._request.held_out, self._find)
        write_durably(path, found.model_dump_json().encode())
        return found

    def _limits(self, state: LifecycleState) -> tuple[str, ...]:
        found = self._run.finding(state, "bias")
        return () if found is None else (f"Test for bias: {found.detail}.",)

    def _bad_data(self, state: LifecycleState, reason: str) -> Update:
        self._run.judged(state, "check data", reason, ok=False)
        return ends(Outcome.BAD_DATA, reason)
