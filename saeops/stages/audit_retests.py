"""What an audit measures again on the new model: labels on its firings, and effects of some latents."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saeops.activations.windows import Window
from saeops.catalog import schema as catalog_schema
from saeops.dictionary.bundle import Bundle
from saeops.drift.audit.config import AuditConfig
from saeops.drift.audit.effects import effect_rows, remeasured
from saeops.drift.audit.labels import retest, split_tokens, standing_labels
from saeops.drift.audit.tabulate import Parts
from saeops.files import write_atomic
from saeops.interventions.config import BenchConfig
from saeops.interventions.effects import Bench, Chosen, LatentEffects
from saeops.interventions.panel import read_panel, score_item
from saeops.interventions.passes import Site
from saeops.labelling.asking import LlmLabeller
from saeops.labelling.config import LabelConfig
from saeops.labelling.examples import DocumentTokens
from saeops.labelling.labels import PATTERN, Label, Labeller
from saeops.labelling.patterns import RuleLabeller
from saeops.ports import LanguageModel, Llm, Watch
from saeops.refs import writes_to_residual
from saeops.stages.audit_passes import Applied
from saeops.stages.bench import panel_path

BEFORE, AFTER = 10, 4
"""Tokens shown round a firing."""
SHOWN = 2
"""Contexts of an example, each model."""


# ── labels ──────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Labelled:
    """The bundle's labels that can be judged again."""

    labels: Mapping[int, Label]

    @classmethod
    def of(cls, bundle: Bundle, config: AuditConfig) -> "Labelled":
        return cls(standing_labels(bundle.labels(), llm=config.llm_labels))

    @property
    def latents(self) -> list[int]:
        return sorted(self.labels)

    def judged_again(
        self,
        frame: pd.DataFrame,
        parts: Parts,
        documents: DocumentTokens,
        *,
        judges: Mapping[str, Labeller],
        config: LabelConfig,
        seed: int,
        watch: Watch,
    ) -> pd.DataFrame:
        """AuditLatentTable with the labels' confidences on either model's firings.

        Args:
            documents: the audited ones, as both models read them.
        """
        old, new = (split_tokens(parts.sides(side), documents, self.latents) for side in ("old", "new"))
        columns: dict[str, np.ndarray] = {side: np.full(len(frame), np.nan) for side in ("old", "new")}
        with watch.bar("audit: labels", len(self.labels), "labels") as bar:
            for found in retest(self.labels, old, new, judges, config, seed=seed):
                bar.advance()
                if found.old is not None and found.new is not None:
                    columns["old"][found.latent], columns["new"][found.latent] = found.old, found.new
        return frame.assign(label_confidence_old=columns["old"], label_confidence_new=columns["new"])


def judges(
    labelled: Labelled, config: LabelConfig, model: LanguageModel, llm: Callable[[], Llm | None]
) -> dict[str, Labeller]:
    """Who judges the labels, by the labeller's name; the LLM only where it wrote some."""
    found: dict[str, Labeller] = {PATTERN: RuleLabeller(config.pattern, model.tokens)}
    if any(label.labeller != PATTERN for label in labelled.labels.values()):
        asked = llm()
        if asked is not None:
            writer = LlmLabeller(
                asked,
                model.tokens,
                max_new_tokens=config.llm.max_new_tokens,
                snippets_per_prompt=config.snippets_per_prompt,
            )
            found[writer.name] = writer
    return found


def document_tokens(ids: Sequence[Sequence[int]], *, window: int) -> DocumentTokens:
    """Documents as labels are tested on them."""
    flat = np.concatenate([np.asarray(tokens, dtype=np.int32) for tokens in ids])
    return DocumentTokens(flat, np.concatenate([[0], np.cumsum([len(tokens) for tokens in ids])]), window)


# ── examples ────────────────────────────────────────────────────────────────


def contexts_of(
    parts: Parts, side: str, latents: Sequence[int], ids: Sequence[Sequence[int]], model: LanguageModel
) -> dict[int, list[dict[str, Any]]]:
    """What latents fire on most under one model: the token, and the text round it."""
    best = parts.strongest(side)
    document = np.concatenate([part.document_T for part in parts.sides(side)])
    position = np.concatenate([part.position_T for part in parts.sides(side)])
    shown: dict[int, list[dict[str, Any]]] = {}
    for latent in latents:
        shown[latent] = []
        for place in np.flatnonzero(best.latent == latent)[:SHOWN].tolist():
            row = int(best.row[place])
            at, tokens = int(position[row]), ids[int(document[row])]
            before, token, after = tokens[max(0, at - BEFORE) : at], tokens[at : at + 1], tokens[at + 1 :][:AFTER]
            texts = ["".join(model.tokens(list(part))) for part in (before, token, after)]
            shown[latent].append(
                {"before": texts[0], "token": texts[1], "after": texts[2], "activation": float(best.value[place])}
            )
    return shown


# ── effects ─────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Remeasuring:
    """The bundle's bench once more, on both models."""

    bundle: Bundle
    config: AuditConfig
    root: Path
    """Of the checkout: where a panel of its own lies."""
    work: Path
    seed: int

    def table(self, old: Applied, new: Applied, neutral: Sequence[str], *, watch: Watch) -> pd.DataFrame:
        """AuditEffectTable; empty where there is nothing to measure."""
        chosen = self._chosen(old.model)
        if not chosen or not writes_to_residual(old.sae.meta.sites.target):
            return pd.DataFrame()
        with watch.bar("audit: effects", 2 * len(chosen), "latents") as bar:
            before, after = [], []
            for latent in self._measured("old", old, chosen, neutral):
                before.append(latent)
                bar.advance(latent=str(latent.latent))
            for latent in self._measured("new", new, chosen, neutral):
                after.append(latent)
                bar.advance(latent=str(latent.latent))
        return effect_rows(before, after, resamples=self.config.resamples, seed=self.seed)

    def _bench(self) -> BenchConfig:
        made_with = BenchConfig.model_validate(self.bundle.provenance.params["bench"])
        return remeasured(made_with, documents=self.config.effect_documents)

    def _measured(
        self, name: str, side: Applied, chosen: Sequence[Chosen], neutral: Sequence[str]
    ) -> Iterator[LatentEffects]:
        bench: Bench | None = None
        for latent in chosen:
            path = self.work / f"{name}-{latent.latent}.json"
            if not path.exists():
                bench = bench or self._prepared(side, neutral)
                write_atomic(path, bench.measure(latent).to_json())
            yield LatentEffects.from_json(path.read_bytes())

    def _prepared(self, side: Applied, neutral: Sequence[str]) -> Bench:
        config, meta = self._bench(), side.sae.meta
        site = Site(side.model, meta.sites, meta.policy, *side.limits)
        panel = read_panel(panel_path(config.panel, self.root))
        items = [score_item(item, side.model.encode) for item in panel.items]
        windows = [
            site.window(side.model.encode(text)[: config.neutral_tokens], document=number)
            for number, text in enumerate(neutral)
        ]
        return Bench.prepare(site, side.sae, config, items=items, neutral=windows, seed=self.seed)

    def _chosen(self, model: LanguageModel) -> list[Chosen]:
        """Some of the latents that the bundle's bench tested, drawn at random."""
        effects = self.bundle.effects()
        tested = effects.drop_duplicates("latent").set_index("latent")
        drawn = np.random.default_rng(self.seed).permutation(tested.index.to_numpy(copy=True))
        latents = sorted(drawn[: self.config.effect_latents].tolist())
        if not latents or "max_activation" not in self.bundle.latents():
            return []
        largest = self.bundle.latents().set_index("latent")["max_activation"]
        contexts = pd.read_parquet(self.bundle.path / "catalog" / catalog_schema.CONTEXTS)
        top = contexts[contexts["kind"] == "top"].sort_values(["latent", "rank"])
        return [
            Chosen(
                latent,
                tested.loc[latent, "drawn"],
                float(largest[latent]),
                tuple(self._windows(top[top["latent"] == latent], model)),
            )
            for latent in latents
        ]

    def _windows(self, rows: pd.DataFrame, model: LanguageModel) -> Iterator[Window]:
        front = (model.bos_id,) if self.bundle.provenance.policy.prepend_bos and model.bos_id is not None else ()
        for row in rows.head(self._bench().firing_contexts).to_dict("records"):
            tokens = [int(token) for token in row["tokens"]][: int(row["position"]) - int(row["start"]) + 1]
            yield Window(int(row["document"]), int(row["start"]), (*front, *tokens))
