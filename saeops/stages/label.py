"""Label: catalog, activations and SAE → labels, each tested on documents that explained nothing."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from saeops.activations.reader import ActivationSet, check_model
from saeops.catalog import schema as catalog_schema
from saeops.digests import digest_json
from saeops.drift.matching.carried import CARRIED, CarriedTable, carried_over
from saeops.drift.matching.metrics import CARRY_OVER
from saeops.errors import ModelMismatch, StageMissing
from saeops.files import publish_folder
from saeops.labelling.asking import LlmLabeller
from saeops.labelling.labels import Label, Labeller
from saeops.labelling.material import Material, draw_latents
from saeops.labelling.metrics import LABELS, Labelled
from saeops.labelling.patterns import RuleLabeller
from saeops.labelling.progress import Progress, Sanity
from saeops.labelling.schema import KIND, METRICS_FILE, TABLE, VERSION, LabelTable, label_frame, label_row
from saeops.labelling.scoring import Score, score, unscored
from saeops.metrics import measure_all, write_metrics
from saeops.params import Params
from saeops.ports import Bar, LanguageModel, Llm, Watch
from saeops.refs import Ref, Workspace
from saeops.sae.canonical import Sae
from saeops.sealed import Sealed, kept, open_sealed, seal
from saeops.stages.carry import Carrying
from saeops.stages.retest import CarriedLabels
from saeops.stats import Bootstrap, Interval
from saeops.tables import read_table, write_table


@dataclass(frozen=True)
class _Job:
    """One labeller with the latents it labels and the snippets its labels are tested on."""

    labeller: Labeller
    latents: tuple[int, ...]
    factor: int
    """Times the snippets that params ask for."""
    null_latents: int
    """Latents on which another latent's label is tested too."""


def run(
    params: Params,
    space: Workspace,
    *,
    model: LanguageModel,
    llm: Llm | None,
    watch: Watch,
    carrying: Carrying | None = None,
) -> Ref:
    """Label latents drawn at random, and test each label on the score split.

    Killed at any point, the same call goes on after the last finished label; an
    LLM is never asked again for what it has answered.

    Args:
        llm: labels the first `label.llm_latents` of them too; None: patterns only.
        carrying: labels of an older dictionary to start from. Those that stand in their test here are not asked
            for again; those that do not give their latent a new label.

    Raises:
        StageMissing: nothing was harvested, trained or catalogued.
        ModelMismatch: model, activations, SAE, catalog and matching do not belong together.
        EndpointUnavailable: the LLM does not answer, or answers nonsense; finished labels are kept.
    """
    acts = ActivationSet.open(space.activations)
    trained = open_sealed(space.sae, kind="sae", made_by="saeops train")
    catalog = open_sealed(space.catalog, kind=catalog_schema.KIND, made_by="saeops diagnose")
    _check_belonging(acts, trained, catalog, model)
    inputs = _inputs(params, acts, trained, catalog, model, llm)
    if carrying is not None:
        _check_carrying(carrying, trained)
        inputs["carried"] = {**carrying.inputs(), "carry": params.match.carry.model_dump(mode="json")}
    work = space.work("label", digest_json(inputs))
    finished = kept(space.labels, kind=KIND, inputs=inputs)
    if finished is None:
        table = read_table(space.catalog / catalog_schema.LATENTS, catalog_schema.LatentTable)
        living = table.loc[table["n_active"] > 0, "latent"].tolist()
        if not living:
            raise StageMissing("every latent is dead: there is nothing to label", hint="train for more tokens")
        progress = Progress(work / "progress.jsonl")
        stage = _Labelling(params, space, living, model, llm, watch, progress, carrying)
        finished = _publish(stage, work / "labels", space.labels, inputs=inputs)
    shutil.rmtree(work, ignore_errors=True)
    return Ref.of(finished)


def _check_belonging(acts: ActivationSet, trained: Sealed, catalog: Sealed, model: LanguageModel) -> None:
    check_model(acts, model.identity.digest)
    for sealed, made_by in ((trained, "saeops train"), (catalog, "saeops diagnose")):
        if sealed.inputs["activations"] != acts.sealed.digest:
            raise ModelMismatch(f"{sealed.path} was made from other activations", hint=f"run `{made_by}` again")
    if catalog.inputs["sae"] != trained.digest:
        raise ModelMismatch(f"{catalog.path} is the catalog of another SAE", hint="run `saeops diagnose` again")


def _check_carrying(carrying: Carrying, trained: Sealed) -> None:
    if carrying.sae != trained.digest:
        raise ModelMismatch(
            f"labels of {carrying.bundle[:12]} were matched to another SAE than {trained.path}",
            hint="match the old dictionary with this one again",
        )


def _inputs(
    params: Params, acts: ActivationSet, trained: Sealed, catalog: Sealed, model: LanguageModel, llm: Llm | None
) -> dict[str, Any]:
    return {
        "activations": acts.sealed.digest,
        "sae": trained.digest,
        "catalog": catalog.digest,
        "model": model.identity.digest,
        "llm": None if llm is None else {"name": llm.name, **llm.identity},
        "seed": params.seed,
        "resamples": params.diagnose.resamples,
        "trusted_confidence": params.promote.trusted_confidence,
        "label": params.label.model_dump(mode="json"),
    }


class _Labelling:
    """The stage at work: which labels are asked for, tested, and counted."""

    def __init__(
        self,
        params: Params,
        space: Workspace,
        living: Sequence[int],
        model: LanguageModel,
        llm: Llm | None,
        watch: Watch,
        progress: Progress,
        carrying: Carrying | None,
    ) -> None:
        config = params.label
        self.params, self.living, self.watch, self.progress = params, living, watch, progress
        self.carried: CarriedLabels | None = None
        self.latents = draw_latents(living, config.latents, seed=params.seed)
        offered = [] if carrying is None else [offer.latent for offer in carrying.offers]
        known = list(dict.fromkeys([*self.latents, *offered]))
        contexts = read_table(space.catalog / catalog_schema.CONTEXTS, catalog_schema.ContextTable)
        acts, sae = ActivationSet.open(space.activations), Sae.load(space.sae)
        self.material = Material.read(
            acts, sae, contexts, known, spell=model.tokens, config=config, seed=params.seed
        )
        rules = RuleLabeller(config.pattern, model.tokens)
        self.judges: dict[str, tuple[Labeller, int]] = {rules.name: (rules, config.pattern.snippets_factor)}
        writer = None
        if llm is not None and config.llm_latents > 0:
            writer = LlmLabeller(
                llm,
                model.tokens,
                max_new_tokens=config.llm.max_new_tokens,
                snippets_per_prompt=config.snippets_per_prompt,
            )
            self.judges[writer.name] = writer, 1
        drawn = tuple(self.latents)
        more: tuple[int, ...] = ()
        if carrying is not None:
            fresh = {name: drawn if name == rules.name else drawn[: config.llm_latents] for name in self.judges}
            self.carried = CarriedLabels(carrying, self.material, self.judges, fresh, progress, params, watch)
            more = tuple(latent for latent in self.carried.fallen if latent not in set(drawn))
        self.jobs = [_Job(rules, (*drawn, *more), config.pattern.snippets_factor, null_latents=len(drawn))]
        if writer is not None:
            standing = {} if self.carried is None else self.carried.standing
            wanted = tuple(
                latent
                for latent in drawn[: config.llm_latents]
                if latent not in standing or standing[latent].labeller != writer.name
            )
            self.jobs.append(_Job(writer, wanted, 1, config.llm.null_latents))

    def rows(self) -> list[dict[str, Any]]:
        """One row a latent and labeller, shown as they come; then those that were carried over."""
        rows: list[dict[str, Any]] = []
        with self.watch.bar("label", sum(len(job.latents) for job in self.jobs), "labels") as bar:
            for job in self.jobs:
                sanity = Sanity(job.labeller, self.progress)
                for start in range(0, len(job.latents), job.labeller.batch):
                    group = job.latents[start : start + job.labeller.batch]
                    self._explain(job, group, sanity)
                    for latent in group:
                        tested = self._tested(job, latent, latent, sanity)
                        outcome = self.progress.outcomes[job.labeller.name, latent]
                        rows.append(label_row(latent, job.labeller.name, outcome, tested))
                        self._show(bar, rows)
        fresh = {(row["latent"], row["version"]) for row in rows}
        return rows if self.carried is None else [*rows, *self.carried.rows(fresh)]

    def _explain(self, job: _Job, group: Sequence[int], sanity: Sanity) -> None:
        # A group is kept whole or not at all: a batch of other prompts could change the last bits of its answers.
        if all((job.labeller.name, latent) in self.progress.outcomes for latent in group):
            return
        outcomes = job.labeller.explain([self.material.examples(latent) for latent in group])
        self.progress.add_outcomes(job.labeller.name, group, outcomes)
        sanity.saw(outcomes)

    def _tested(self, job: _Job, latent: int, label_of: int, sanity: Sanity) -> Score:
        """The score of `label_of`'s label on `latent`'s snippets."""
        name, config = job.labeller.name, self.params.label
        label = self.progress.outcomes[name, label_of]
        test = self.material.test_set(latent, factor=job.factor)
        if not isinstance(label, Label):
            return unscored(base_rate=test.base_rate, asked=1, parse_failures=1)
        if sum(snippet.fires for snippet in test.snippets) < config.min_positives:
            return unscored(base_rate=test.base_rate, asked=1, parse_failures=0)
        if (name, latent, label_of) not in self.progress.verdicts:
            verdicts = job.labeller.detect(label, test.snippets)
            self.progress.add_verdicts(name, latent, label_of, verdicts)
            sanity.saw(verdicts)
        return score(
            self.progress.verdicts[name, latent, label_of],
            test,
            competing=sum(latent in each.latents for each in self.jobs)
            + (self.carried is not None and latent in self.carried.standing),
            min_positives=config.min_positives,
            asked_before=1,
        )

    def _show(self, bar: Bar, rows: Sequence[Mapping[str, Any]]) -> None:
        confidences = [row["confidence"] for row in rows]
        trusted = sum(value >= self.params.promote.trusted_confidence for value in confidences)
        mean = sum(confidences) / len(rows)
        bar.advance(1, labels=str(len(rows)), confidence=f"{mean:.2f}")
        if len(rows) % 20 == 0:
            shown = {"label_confidence_mean": mean, "labels_trusted_fraction": trusted / len(rows)}
            self.watch.metrics(shown, step=len(rows))

    def shuffled(self) -> list[float]:
        """Confidences of labels on other latents' snippets: what a label that means nothing gets."""
        confidences = []
        for job in self.jobs:
            named = [x for x in job.latents if isinstance(self.progress.outcomes[job.labeller.name, x], Label)]
            others = [*named[1:], *named[:1]]
            pairs = list(zip(named, others, strict=True))[: job.null_latents] if len(named) > 1 else []
            with self.watch.bar(f"null of {job.labeller.name}", len(pairs), "labels") as bar:
                for latent, other in pairs:
                    sanity = Sanity(job.labeller, self.progress)
                    confidences.append(self._tested(job, latent, other, sanity).confidence)
                    bar.advance(1)
        return confidences


def _publish(stage: _Labelling, work: Path, target: Path, *, inputs: dict[str, Any]) -> Sealed:
    params = stage.params
    frame = label_frame(stage.rows())
    draw = Bootstrap(params.diagnose.resamples, params.seed)
    # Latents that hold a carried label were drawn by nobody: a mean over them would speak of the stable ones.
    drawn = frame[frame["latent"].isin(stage.latents)]
    evidence = Labelled(drawn, stage.shuffled(), params.promote.trusted_confidence, params.label.min_positives)
    metrics = measure_all(LABELS, evidence, draw)
    shutil.rmtree(work, ignore_errors=True)
    write_table(frame, work / TABLE, LabelTable, rows=len(frame))
    if stage.carried is not None:
        carried = stage.carried.table()
        write_table(carried, work / CARRIED, CarriedTable, rows=len(carried))
        metrics |= measure_all(CARRY_OVER, carried_over(carried), draw)
    write_metrics(work / METRICS_FILE, metrics)
    summary = _summary(stage, drawn, metrics)
    sealed = seal(work, kind=KIND, version=VERSION, inputs=inputs, summary=summary)
    publish_folder(work, target)
    stage.watch.metrics({name: interval.point for name, interval in metrics.items()})
    stage.watch.say(_said(summary))
    return Sealed(**{**vars(sealed), "path": target})


def _summary(stage: _Labelling, frame: pd.DataFrame, metrics: Mapping[str, Interval]) -> dict[str, Any]:
    """Coverage: of how many latents this speaks, and what it does not say."""
    params, chosen = stage.params, frame[frame["chosen"]]
    by_labeller = {
        str(name): {
            "labels": len(rows),
            "unparsed": int(rows["text"].isna().sum()),
            "chosen": int(rows["chosen"].sum()),
            "mean_confidence": float(rows["confidence"].mean()),
        }
        for name, rows in frame.groupby("labeller")
    }
    return {
        "living": len(stage.living),
        "drawn": len(stage.latents),
        "labelled": int(chosen["text"].notna().sum()),
        "scored": int((chosen["n_positive"] >= params.label.min_positives).sum()),
        "trusted": int((chosen["confidence"] >= params.promote.trusted_confidence).sum()),
        "trusted_confidence": params.promote.trusted_confidence,
        "mean_confidence": metrics["label_confidence"].point,
        "shuffled_confidence": metrics["label_shuffled_confidence"].point,
        "labellers": by_labeller,
        **({} if stage.carried is None else {"carried": stage.carried.summary()}),
    }


def _said(summary: Mapping[str, Any]) -> str:
    carried = summary.get("carried")
    kept = f"; {carried['kept']} of {carried['labels']} labels of {carried['from'][:12]} stand" if carried else ""
    return (
        f"label: {summary['drawn']} of {summary['living']} living latents drawn at random, "
        f"{summary['labelled']} labelled, {summary['scored']} tested, "
        f"{summary['trusted']} with confidence ≥ {summary['trusted_confidence']:g}; mean "
        f"{summary['mean_confidence']:.2f}, shuffled labels {summary['shuffled_confidence']:.2f}{kept}"
    )
