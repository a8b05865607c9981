"""Match: two dictionaries, latent by latent. Format: docs/formats/match.md."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saeops.activations.reader import ActivationSet
from saeops.diagnostics.figures import save_png
from saeops.digests import digest_json
from saeops.drift.matching.figures import score_figure
from saeops.drift.matching.kinds import KINDS
from saeops.drift.matching.match import Matching, Seeds, match
from saeops.drift.matching.metrics import BESIDE_SEEDS, MATCHING
from saeops.drift.matching.paired import Reading, codes_on_both
from saeops.drift.matching.schema import FIGURE, KIND, METRICS_FILE, TABLE, VERSION, MatchTable, match_frame
from saeops.drift.matching.scores import Side
from saeops.errors import NotComparable
from saeops.files import publish_folder
from saeops.metrics import measure_all, write_metrics
from saeops.params import Params
from saeops.ports import Watch
from saeops.refs import Ref, Workspace
from saeops.sae.codes import Codes
from saeops.sealed import Sealed, kept, seal
from saeops.stages.controls import open_controls
from saeops.stages.matchable import Matchable, controls_at
from saeops.stats import Bootstrap
from saeops.tables import write_table


@dataclass(frozen=True)
class Matched:
    """What a matching left behind."""

    ref: Ref
    seconds: float | None
    """What matching alone took; None: it was done before, and kept."""


def run(
    first: Matchable,
    second: Matchable,
    params: Params,
    space: Workspace,
    *,
    activations: Sequence[ActivationSet],
    watch: Watch,
) -> Matched:
    """Match B (`second`) beside A (`first`), and leave a sealed `artifacts/match`.

    Args:
        activations: sets at hand. A side is encoded on the first that was harvested from its model, at its site;
            activations count where both sides have one and they share held-out documents.

    Raises:
        NotComparable: they read other sites, their decoder rows have other widths, or nothing lives in one.
        FolderDamaged: a shard's bytes are not those that were sealed.
    """
    if first.sae.meta.sites != second.sae.meta.sites:
        raise NotComparable(
            f"{first.called} reads {first.sae.meta.sites}, {second.called} reads {second.sae.meta.sites}",
            hint="match dictionaries of one site: directions of other activations say nothing of these",
        )
    readings = [_reading(side, activations) for side in (first, second)]
    inputs = _inputs(first, second, params, space, readings)
    done = kept(space.match, kind=KIND, inputs=inputs)
    if done is not None:
        return Matched(Ref.of(done), None)
    codes = _codes(readings, params, watch)
    sides = [Side.of(side.sae.W_dec, c, side.living_F) for side, c in zip((first, second), codes, strict=True)]
    seeds = _seeds(first, second, sides, readings, codes, params, space)
    began = time.perf_counter()
    with watch.bar("match", 1, "dictionaries") as bar:
        found = match(sides[0], sides[1], params.match, seed=params.seed, seeds=seeds)
        bar.advance(1)
    seconds = time.perf_counter() - began
    work = space.work("match", digest_json(inputs))
    sealed = _publish(found, first, second, params, work, space.match, inputs=inputs, watch=watch)
    return Matched(Ref.of(sealed), seconds)


def _reading(side: Matchable, activations: Sequence[ActivationSet]) -> Reading | None:
    for acts in activations:
        if acts.model["digest"] == side.model and side.sae.meta.site in acts.sites:
            return Reading(side.sae, acts)
    return None


def _inputs(
    first: Matchable, second: Matchable, params: Params, space: Workspace, readings: Sequence[Reading | None]
) -> dict[str, Any]:
    beside = controls_at(space)
    return {
        "first": first.digest,
        "second": second.digest,
        "activations": [None if one is None else one.acts.sealed.digest for one in readings],
        "controls": beside if beside and beside in (first.controls, second.controls) else None,
        "match": params.match.model_dump(mode="json", exclude={"carry"}),
        "resamples": params.diagnose.resamples,
        "seed": params.seed,
    }


def _codes(readings: Sequence[Reading | None], params: Params, watch: Watch) -> tuple[Codes | None, Codes | None]:
    first, second = readings
    if not params.match.tokens or not params.match.activation_weight:
        return None, None
    if first is None or second is None:
        watch.say("match: no activation set at hand of both models; decoder directions alone are compared")
        return None, None
    found = codes_on_both(first, second, tokens=params.match.tokens)
    if found is None:
        watch.say("match: no held-out tokens are shared; decoder directions alone are compared")
        return None, None
    return found


def _seeds(
    first: Matchable,
    second: Matchable,
    sides: Sequence[Side],
    readings: Sequence[Reading | None],
    codes: Sequence[Codes | None],
    params: Params,
    space: Workspace,
) -> tuple[Seeds, ...]:
    """A dictionary beside those of other seeds, where the checkout's controls are its own."""
    own, beside = controls_at(space), []
    for place, subject in enumerate((second, first)):
        at = 1 - place
        reading = readings[at]
        if not own or subject.controls != own:
            continue
        for other in open_controls(space).seeds:
            theirs, side = None, sides[at]
            if codes[at] is not None and reading is not None:
                found = codes_on_both(reading, Reading(other, reading.acts), tokens=params.match.tokens)
                if found is not None:
                    theirs = found[1]
                    side = Side.of(subject.sae.W_dec, found[0], subject.living_F)
            living_F = np.ones(other.meta.d_sae, dtype=bool)
            if theirs is not None:
                living_F = np.bincount(theirs.latent.numpy(), minlength=other.meta.d_sae) > 0
            beside.append(Seeds(side, Side.of(other.W_dec, theirs, living_F)))
        break
    return tuple(beside)


def _publish(
    found: Matching,
    first: Matchable,
    second: Matchable,
    params: Params,
    work: Path,
    target: Path,
    *,
    inputs: dict[str, Any],
    watch: Watch,
) -> Sealed:
    frame = match_frame(found)
    draw = Bootstrap(params.diagnose.resamples, params.seed)
    metrics = measure_all(MATCHING, found, draw)
    if found.seeds is not None:
        metrics |= measure_all(BESIDE_SEEDS, found, draw)
    shutil.rmtree(work, ignore_errors=True)
    write_table(frame, work / TABLE, MatchTable, rows=len(frame))
    write_metrics(work / METRICS_FILE, metrics)
    figure = score_figure(found, matched=params.match.matched)
    save_png(figure, work / FIGURE)
    sealed = seal(work, kind=KIND, version=VERSION, inputs=inputs, summary=_summary(found, first, second, params))
    publish_folder(work, target)
    watch.metrics({name: interval.point for name, interval in metrics.items()})
    watch.figure("match/scores", figure)
    return Sealed(**{**vars(sealed), "path": target})


def _summary(found: Matching, first: Matchable, second: Matchable, params: Params) -> dict[str, Any]:
    fires = found.first.fires
    return {
        "first": first.called,
        "second": second.called,
        "living": [len(found.first), len(found.second)],
        "dead": [int((~side.living_F).sum()) for side in (first, second)],
        "tokens": int(fires.shape[0]) if found.with_activations and fires is not None else 0,
        "counts": {kind: found.count(kind) for kind in KINDS},
        "value": found.found.value,
        "gap": found.found.gap,
        "rounds": found.found.rounds,
        "candidates": found.found.candidates,
        "null": {
            "latents": len(found.null),
            "beyond": params.match.beyond_null,
            "score": found.null.quantile(params.match.beyond_null),
        },
        "seed_pairs": 0 if found.seeds is None else len(found.seeds),
    }
