"""Bench: SAE + catalog + labels + model → what ablating and steering latents does, beside random directions."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saeops.activations.reader import ActivationSet, check_model
from saeops.activations.split import Split
from saeops.activations.windows import Window
from saeops.catalog import schema as catalog_schema
from saeops.digests import digest_json
from saeops.errors import CorpusTooSmall, ModelMismatch, PanelInvalid, SiteUnknown
from saeops.files import publish_folder, write_atomic
from saeops.interventions.config import BenchConfig
from saeops.interventions.effects import Bench, Chosen, Drawn, LatentEffects
from saeops.interventions.figures import dose_figure
from saeops.interventions.metrics import INTERVENTIONS, Benched
from saeops.interventions.panel import Panel, read_panel, score_item
from saeops.interventions.passes import Site
from saeops.interventions.schema import EFFECTS, KIND, METRICS, VERSION, EffectTable
from saeops.interventions.tabulate import effects_table
from saeops.labelling import schema as label_schema
from saeops.metrics import measure_all, write_metrics
from saeops.params import Params
from saeops.ports import LanguageModel, Watch
from saeops.refs import Ref, Workspace, writes_to_residual
from saeops.sae.canonical import Sae
from saeops.sealed import Sealed, kept, open_sealed, seal
from saeops.stats import Bootstrap
from saeops.tables import read_table, write_table

NEUTRAL_SPLIT: Split = "panel"
PACKAGE = Path(__file__).parents[1]


def run(params: Params, space: Workspace, *, model: LanguageModel, watch: Watch) -> Ref:
    """Measure some latents and leave a sealed `artifacts/effects`.

    Killed at any point, the same call goes on after the last latent measured and ends with the same bytes.

    Raises:
        StageMissing: nothing was harvested, trained, cataloged or labelled.
        ModelMismatch: the model, the activations and the SAE do not belong together.
        PanelInvalid: the panel has faults (all are listed).
        SiteUnknown: a site whose directions have no direct effect on the logits.
        CorpusTooSmall: no neutral document, or no living latent.
    """
    subject = _Subject.open(params, space, model)
    work = space.work("bench", digest_json(subject.inputs))
    finished = kept(space.effects, kind=KIND, inputs=subject.inputs)
    if finished is None:
        effects = _measured(subject, work / "latents", watch=watch)
        finished = _publish(subject, effects, work / "effects", space.effects, watch=watch)
    shutil.rmtree(work, ignore_errors=True)
    return Ref.of(finished)


@dataclass(frozen=True)
class _Subject:
    """What is measured, and with what."""

    params: Params
    space: Workspace
    model: LanguageModel
    acts: ActivationSet
    sae: Sae
    panel: Panel
    inputs: Mapping[str, Any]

    @classmethod
    def open(cls, params: Params, space: Workspace, model: LanguageModel) -> "_Subject":
        """Open and check everything that is read."""
        acts = ActivationSet.open(space.activations)
        check_model(acts, model.identity.digest)
        folders = {
            "sae": open_sealed(space.sae, kind="sae", made_by="saeops train"),
            "catalog": open_sealed(space.catalog, kind=catalog_schema.KIND, made_by="saeops diagnose"),
            "labels": open_sealed(space.labels, kind=label_schema.KIND, made_by=label_schema.MADE_BY),
        }
        sae = Sae.load(space.sae)
        _check_belonging(sae, model)
        panel = read_panel(panel_path(params.bench.panel, space.root))
        config = params.bench.model_dump(mode="json", exclude={"panel"})
        inputs = {
            "activations": acts.sealed.digest,
            "model": model.identity.digest,
            "seed": params.seed,
            "bench": config,
            "panel": panel.digest(),
            **{name: folder.digest for name, folder in folders.items()},
        }
        return cls(params, space, model, acts, sae, panel, inputs)

    @property
    def config(self) -> BenchConfig:
        return self.params.bench

    @cached_property
    def site(self) -> Site:
        return Site.of(self.model, self.sae.meta)

    def bench(self) -> Bench:
        """The panel and the neutral documents with their clean passes."""
        items = [score_item(item, self.model.encode) for item in self.panel.items]
        unusable = [i.id for i, scored in zip(self.panel.items, items, strict=True) if not scored.ids]
        if unusable:
            raise PanelInvalid(
                f"{', '.join(unusable)}: the prompt has no tokens", hint="see docs/formats/panel.md"
            )
        return Bench.prepare(
            self.site, self.sae, self.config, items=items, neutral=self._neutral(), seed=self.params.seed
        )

    def _neutral(self) -> list[Window]:
        """The beginning of each neutral document."""
        windows = self.acts.windows(NEUTRAL_SPLIT, self.config.neutral_documents)
        front = 0 if self.site.bos is None else 1
        cut = [
            Window(w.document, w.start, w.ids[: front + self.config.neutral_tokens])
            for w in windows
            if w.start == 0
        ]
        if not cut:
            raise CorpusTooSmall(
                f"no {NEUTRAL_SPLIT} document to measure off-target effects on",
                hint="harvest more tokens, or raise harvest.splits.panel",
            )
        return cut

    def chosen(self) -> list[Chosen]:
        """Half the best labelled, half drawn at random from the other living latents."""
        latents = read_table(
            self.space.catalog / catalog_schema.LATENTS, catalog_schema.LatentTable, rows=self.sae.meta.d_sae
        )
        living = latents[latents["n_active"] > 0].set_index("latent")["max_activation"].astype(float)
        if living.empty:
            raise CorpusTooSmall("no latent fires on the explain split", hint="train longer or on more tokens")
        labels = read_table(self.space.labels / label_schema.TABLE, label_schema.LabelTable)
        best = _best_labelled(labels, set(living.index), self.config.latents // 2)
        rest = living.index.difference(best)
        generator = np.random.default_rng(self.params.seed)
        count = min(self.config.latents - len(best), len(rest))
        drawn = sorted(generator.choice(rest.to_numpy(), count, replace=False).tolist())
        contexts = self._firing_contexts([*best, *drawn])
        reasons: list[tuple[int, Drawn]] = [
            *((latent, "confidence") for latent in best),
            *((latent, "random") for latent in drawn),
        ]
        return [Chosen(latent, why, float(living[latent]), contexts.get(latent, ())) for latent, why in reasons]

    def _firing_contexts(self, latents: list[int]) -> dict[int, tuple[Window, ...]]:
        frame = pd.read_parquet(self.space.catalog / catalog_schema.CONTEXTS)
        top = frame[(frame["kind"] == "top") & frame["latent"].isin(latents)].sort_values(["latent", "rank"])
        windows: dict[int, list[Window]] = {}
        for row in top[top["rank"] < self.config.firing_contexts].to_dict("records"):
            tokens = [int(t) for t in row["tokens"]][: int(row["position"]) - int(row["start"]) + 1]
            window = self.site.window(tokens, document=int(row["document"]), start=int(row["start"]))
            windows.setdefault(int(row["latent"]), []).append(window)
        return {latent: tuple(found) for latent, found in windows.items()}


def _best_labelled(labels: pd.DataFrame, living: set[int], count: int) -> list[int]:
    usable = labels[labels["chosen"] & labels["text"].notna() & (labels["confidence"] > 0)]
    usable = usable[usable["latent"].isin(living)].sort_values(["confidence", "latent"], ascending=[False, True])
    return [int(latent) for latent in usable["latent"].head(count)]


def _check_belonging(sae: Sae, model: LanguageModel) -> None:
    read = str(sae.meta.model.get("digest"))
    if read != model.identity.digest:
        raise ModelMismatch(
            f"the SAE was trained on model {read[:12]}, the model at hand is {model.identity.digest[:12]}",
            hint="run `saeops train` on activations of this model, or set model.ref back",
        )
    target = sae.meta.sites.target
    if not writes_to_residual(target):
        raise SiteUnknown(
            f"{target} does not write to the residual stream: its directions raise no tokens to look for",
            hint="bench an SAE that gives back resid_post, attn_out or mlp_out",
        )


def panel_path(panel: Path, root: Path) -> Path:
    """A panel of the checkout, else the one that ships with saeops."""
    here = root / panel
    shipped = PACKAGE.parent / panel
    return here if here.exists() or not shipped.exists() else shipped


def _measured(subject: _Subject, work: Path, *, watch: Watch) -> list[LatentEffects]:
    """Every latent's effects, those of a killed run read back."""
    chosen = subject.chosen()
    with watch.bar("bench", len(chosen), "latents") as bar:
        effects = []
        for measured in _one_by_one(subject, chosen, work):
            effects.append(measured)
            bar.advance(latent=str(measured.latent))
    return effects


def _one_by_one(subject: _Subject, chosen: list[Chosen], work: Path) -> Iterator[LatentEffects]:
    bench: Bench | None = None
    for latent in chosen:
        path = work / f"{latent.latent}.json"
        if not path.exists():
            # The clean passes are needed only where something is left to measure.
            bench = bench or subject.bench()
            write_atomic(path, bench.measure(latent).to_json())
        yield LatentEffects.from_json(path.read_bytes())


def _publish(subject: _Subject, effects: list[LatentEffects], work: Path, target: Path, *, watch: Watch) -> Sealed:
    config = subject.config
    draw = {"resamples": config.resamples, "seed": subject.params.seed}
    table = effects_table(effects, **draw)
    metrics = measure_all(INTERVENTIONS, Benched(effects, config.reference_strength), Bootstrap(**draw))
    shutil.rmtree(work, ignore_errors=True)
    write_table(table, work / EFFECTS, EffectTable)
    write_metrics(work / METRICS, metrics)
    seal(work, kind=KIND, version=VERSION, inputs=subject.inputs, summary=_summary(subject, effects))
    publish_folder(work, target)
    watch.metrics({name: interval.point for name, interval in metrics.items()})
    watch.figure("dose_response", dose_figure(effects))
    return open_sealed(target, kind=KIND)


def _summary(subject: _Subject, effects: list[LatentEffects]) -> dict[str, Any]:
    told_apart = len(effects[0].steered[0].moved.effect)
    return {
        "latents": len(effects),
        "best_labelled": sum(e.drawn == "confidence" for e in effects),
        "at_random": sum(e.drawn == "random" for e in effects),
        "prompts": len(subject.panel.items),
        "prompts_told_apart": told_apart,
        "neutral_documents": len(effects[0].steer_kl.effect),
        "reference_strength": subject.config.reference_strength,
        "random_directions": subject.config.random_directions,
    }
