"""What an audit finds, written into its folder: figures, nulls, tables, examples (docs/formats/audit.md)."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saeops.activations.windows import prepended
from saeops.diagnostics.figures import save_png
from saeops.drift.audit import schema
from saeops.drift.audit.figures import correlation_figure, ratio_figure
from saeops.drift.audit.latents import GONE, Pairing
from saeops.drift.audit.metrics import CHANGES, LATENTS, RETESTED, SAME_TOKENS, SPLICED, Compared
from saeops.drift.audit.outcome import DictionaryVerdict, judge_dictionary
from saeops.drift.audit.record import LatentCounts
from saeops.drift.audit.tabulate import Parts, judged, latent_frame, permuted_metrics
from saeops.files import write_atomic
from saeops.labelling.config import LabelConfig
from saeops.metrics import measure_all, write_metrics, write_nulls
from saeops.params import Params
from saeops.ports import Llm, Watch
from saeops.stages.audit_retests import Remeasuring, contexts_of, document_tokens, judges
from saeops.stages.audit_work import Reader, Subject
from saeops.stats import Interval
from saeops.tables import write_table

EXAMPLES = 12
"""Latents that are not what they were, drawn at random to be looked at."""
_EXAMPLES = 12


@dataclass(frozen=True)
class Findings:
    """The reader, and what is measured again beside what it reads."""

    reader: Reader
    params: Params
    root: Path
    llm: Callable[[], Llm | None]

    @property
    def subject(self) -> Subject:
        return self.reader.subject

    @property
    def pairing(self) -> Pairing:
        return self.reader.pairing

    @property
    def watch(self) -> Watch:
        return self.reader.watch

    @cached_property
    def sha256(self) -> list[str]:
        return [document.sha256 for document in self.reader.documents]

    @cached_property
    def ids(self) -> list[list[int]]:
        """The audited documents in the old model's tokens."""
        return [self.subject.old.encode(document.text) for document in self.reader.documents]

    def with_labels(self, latents: pd.DataFrame, parts: Parts) -> pd.DataFrame:
        """AuditLatentTable with the labels judged again, where both models read the same tokens."""
        labelled = self.reader.labelled
        if self.pairing != "tokens" or not labelled.labels:
            return latents
        subject, config = self.subject, LabelConfig.model_validate(self.subject.bundle.provenance.params["label"])
        bos = prepended(subject.sae.meta.policy, subject.old.bos_id)
        return labelled.judged_again(
            latents,
            parts,
            document_tokens(self.ids, window=subject.reading.context_size - (bos is not None)),
            judges=judges(labelled, config, subject.old, self.llm),
            config=config,
            seed=subject.seed,
            watch=self.watch,
        )

    def effects(self) -> pd.DataFrame:
        """AuditEffectTable, where both models read the same tokens."""
        if self.pairing != "tokens":
            return pd.DataFrame()
        reader, subject = self.reader, self.subject
        again = Remeasuring(
            subject.bundle, subject.config, self.root, reader.work.parent / "effects", subject.seed
        )
        neutral = [document.text for document in reader.chosen.neutral]
        return again.table(reader.old, reader.new, neutral, watch=self.watch)


def write_width(folder: Path, verdict: DictionaryVerdict) -> dict[str, Any]:
    write_metrics(folder / schema.METRICS_FILE, {})
    return {
        "pairing": "none",
        **_said(verdict),
        "documents": 0,
        "tokens": 0,
        "latents": LatentCounts().model_dump(),
    }


def _said(verdict: DictionaryVerdict) -> dict[str, Any]:
    return {"outcome": verdict.outcome, "fresh_start": verdict.fresh_start, "reasons": list(verdict.reasons)}


def write(stage: Findings, folder: Path) -> dict[str, Any]:
    """Everything that is measured, into the folder; what its manifest says of it."""
    subject, config, pairing = stage.subject, stage.subject.config, stage.pairing
    _say_what_differs(stage)
    parts, sums = stage.reader.parts(), list(stage.reader.spliced())
    old = parts.documents("old", "old", stage.sha256, sums[0])
    halves = _halves(stage, parts, old)
    compared, counts, frames = halves.compared, halves.counts, [old]
    if pairing != "none":
        exposed, verdicts = judged(parts, config.latents, pairing)
        latents = latent_frame(parts, exposed, verdicts, name_F=stage.reader.name_F, pairing=pairing)
        new = parts.documents("new", "new", stage.sha256, sums[1])
        compared = Compared(stage.with_labels(latents, parts), old, new, effects=stage.effects())
        counts, frames = verdicts.counts, [old, new]
    metrics = measure_all(_metrics(compared, pairing), compared, subject.draw)
    untrained = _untrained(stage)
    fired = float(compared.old["fired"].sum() / max(compared.old["tokens"].sum(), 1))
    verdict = judge_dictionary(metrics, config, l0=fired, tokenizer_changed=pairing == "documents")
    write_metrics(folder / schema.METRICS_FILE, metrics)
    write_nulls(folder / schema.NULLS_FILE, _nulls(stage, halves.compared, untrained, compared.latents))
    _write_tables(folder, compared, [*frames, untrained.new])
    write_atomic(folder / schema.EXAMPLES, _examples(stage, compared.latents, parts))
    _figures(stage, folder / schema.FIGURES, compared.latents)
    stage.watch.metrics({key: interval.point for key, interval in metrics.items()})
    return {
        "pairing": pairing,
        **_said(verdict),
        "documents": len(old),
        "tokens": int(parts.tokens_U.sum()),
        "tested": int(compared.latents["tested"].sum()),
        "latents": counts.model_dump(),
    }


def _write_tables(folder: Path, compared: Compared, frames: Sequence[pd.DataFrame]) -> None:
    documents = pd.concat(frames, ignore_index=True)
    write_table(compared.latents, folder / schema.LATENTS, schema.AuditLatentTable, rows=len(compared.latents))
    write_table(documents, folder / schema.DOCUMENTS, schema.AuditDocumentTable, rows=len(documents))
    if len(compared.effects):
        write_table(compared.effects, folder / schema.EFFECTS, schema.AuditEffectTable)


def _say_what_differs(stage: Findings) -> None:
    match stage.pairing:
        case "none":
            stage.watch.say(
                "audit: the new model is the champion's own; one half of the documents is compared with the other,"
                " which shows the noise of an audit"
            )
        case "documents":
            stage.watch.say(
                "audit: the tokenizer changed; latents are compared document by document, by characters, and what"
                " needs the same tokens is left out"
            )
        case "tokens":
            pass


def _metrics(compared: Compared, pairing: Pairing) -> list[Any]:
    found = [*CHANGES, *SPLICED, *LATENTS, *(SAME_TOKENS if pairing == "tokens" else ())]
    labels, steering = RETESTED
    if compared.latents[["label_confidence_old", "label_confidence_new"]].notna().all(axis=1).any():
        found.append(labels)
    if len(compared.effects):
        found.append(steering)
    return found


@dataclass(frozen=True)
class _Halves:
    """The old model on one half of the documents, and on the other: the noise of an audit without pairs."""

    compared: Compared
    counts: LatentCounts


def _halves(stage: Findings, parts: Parts, old: pd.DataFrame) -> _Halves:
    exposed, verdicts = judged(parts, stage.subject.config.latents, "none")
    latents = latent_frame(parts, exposed, verdicts, name_F=stage.reader.name_F, pairing="none")
    first_U = parts.first_U
    return _Halves(Compared(latents, old[first_U], old[~first_U], paired=False), verdicts.counts)


def _untrained(stage: Findings) -> Compared:
    """A random-init copy of the old model in the new one's place."""
    parts = stage.reader.random_parts()
    exposed, verdicts = judged(parts, stage.subject.config.latents, "tokens")
    latents = latent_frame(parts, exposed, verdicts, name_F=stage.reader.name_F, pairing="tokens")
    old, untrained = (
        parts.documents(side, model, stage.sha256, None) for side, model in (("old", "old"), ("new", "random"))
    )
    return Compared(latents, old, untrained)


def _nulls(
    stage: Findings, halves: Compared, untrained: Compared, latents: pd.DataFrame
) -> dict[str, dict[str, Interval]]:
    draw = stage.subject.draw
    nulls = {
        "other_documents": measure_all((*CHANGES, *LATENTS), halves, draw),
        "random_model": measure_all((*CHANGES, *LATENTS, *SAME_TOKENS), untrained, draw),
    }
    if stage.pairing == "tokens":
        nulls["permuted"] = permuted_metrics(latents, SAME_TOKENS, draw)
    return nulls


def _examples(stage: Findings, latents: pd.DataFrame, parts: Parts) -> bytes:
    """Latents drawn at random from those that are not what they were, with what they fire on most."""
    gone = latents.loc[latents["verdict"].isin(GONE), "latent"].to_numpy(copy=True)
    generator = np.random.default_rng([stage.subject.seed, _EXAMPLES])
    drawn = sorted(generator.permutation(gone)[:EXAMPLES].tolist())
    subject = stage.subject
    new_ids = stage.ids
    if stage.pairing == "documents":
        new_ids = [subject.new.encode(document.text) for document in stage.reader.documents]
    old = contexts_of(parts, "old", drawn, stage.ids, subject.old)
    new = contexts_of(parts, "new", drawn, new_ids, subject.new)
    labels, rows = stage.reader.labelled.labels, latents.set_index("latent")
    columns = ("verdict", "n_old", "n_new", "density_ratio", "activation_ratio", "correlation")
    found = [
        {
            "latent": latent,
            "label": labels[latent].text if latent in labels else None,
            **{name: _plain(rows.loc[latent, name]) for name in columns},
            "old": old[latent],
            "new": new[latent],
        }
        for latent in drawn
    ]
    return json.dumps(found, indent=1, ensure_ascii=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    return None if not np.isfinite(value) else float(value)


def _figures(stage: Findings, folder: Path, latents: pd.DataFrame) -> None:
    figures = {"ratios": ratio_figure(latents)}
    if stage.pairing == "tokens":
        figures["correlations"] = correlation_figure(latents)
    for name, figure in figures.items():
        save_png(figure, folder / f"{name}.png")
        stage.watch.figure(f"audit_{name}", figure)
