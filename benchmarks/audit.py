"""How far an audit can be trusted: audits of a tiny model whose truth is known, repeated on fresh documents.

`python -m benchmarks.audit` reads every document once through each version of the model, then draws documents for
each repeat. Nothing changed where the model is compared with itself on other documents, or with its own weights
rounded to bfloat16: there every verdict but kept and too few is a false alarm. Where something was planted, what
there is to find is known; after fine-tuning, it is what the limits say of a latent on all documents.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import LlamaForCausalLM

from saeops.adapters.installed_docs import read_docs, site_packages
from saeops.adapters.watch import QuietWatch
from saeops.drift.audit.documents import HeldOut, HeldOutDocuments
from saeops.drift.audit.latents import Pairing
from saeops.drift.audit.metrics import CHANGES, LATENTS, Compared
from saeops.drift.audit.outcome import judge_dictionary
from saeops.drift.audit.part import Part
from saeops.drift.audit.sums import PairSums
from saeops.drift.audit.tabulate import Parts, judged, latent_frame
from saeops.metrics import measure_all
from saeops.stages.audit_work import Reader
from saeops.stats import Bootstrap, wilson
from tests import auditing
from tests.auditing import SILENCED, SWAPPED, World

CHARACTERS = (400, 1200)
RESAMPLES = 200


def documents(count: int) -> tuple[HeldOut, ...]:
    """Real English: documentation of installed packages."""
    texts = (raw.text[: CHARACTERS[1]] for raw in read_docs(site_packages()) if len(raw.text) >= CHARACTERS[0])
    distinct = islice(dict.fromkeys(islice(texts, 2 * count)), count)
    return tuple(HeldOut(text, str(number), f"{number:064x}") for number, text in enumerate(distinct))


def read(world: World, version: Path, held: tuple[HeldOut, ...]) -> list[Part]:
    """A part a document, so that any of them can be drawn."""
    reader = Reader(
        world.subject(version), HeldOutDocuments(held, ()), world.root / "parts", lambda: world.model, QuietWatch()
    )
    return [reader.group(number, number + 1) for number in range(len(held))]


def drawn(parts: Sequence[Part], chosen: Sequence[int], latents: int) -> Parts:
    """Some documents' parts, as an audit of just these would have them."""

    def numbered(sums: PairSums, number: int) -> PairSums:
        return replace(sums, document=np.full_like(sums.document, number))

    picked = (replace(parts[at], pairs=numbered(parts[at].pairs, i)) for i, at in enumerate(chosen))
    return Parts(tuple(picked), latents, top=10)


def outcome_of(world: World, parts: Parts, pairing: Pairing) -> tuple[np.ndarray, np.ndarray, str]:
    """Which latents are called gone, which are tested, and the dictionary's outcome."""
    config, names = world.params.audit, np.arange(parts.latents)
    exposed, verdicts = judged(parts, config.latents, pairing)
    # Contexts are not judged, and the parts' permuted sums are not renumbered: both are left as they are.
    frame = latent_frame(replace_permuted(parts), exposed, verdicts, name_F=names, pairing="none")
    sha256 = [f"{number:064x}" for number in range(len(parts.parts))]
    old, new = (parts.documents(side, side, sha256, None) for side in ("old", "new"))
    compared = Compared(frame, old, new)
    if pairing == "none":
        compared = Compared(frame, old[parts.first_U], old[~parts.first_U], paired=False)
    metrics = measure_all((*CHANGES, *LATENTS), compared, Bootstrap(RESAMPLES, 0))
    fired = float(old["fired"].sum() / old["tokens"].sum())
    return verdicts.gone_F, verdicts.tested_F, judge_dictionary(metrics, config, l0=fired).outcome


def replace_permuted(parts: Parts) -> Parts:
    return replace(parts, parts=tuple(replace(part, permuted=part.pairs) for part in parts.parts))


def repeats(
    world: World, parts: Sequence[Part], pairing: Pairing, *, times: int, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """Audits of documents drawn anew; twice as many where the two sides take half of them each."""
    generator = np.random.default_rng(0)
    for _ in range(times):
        chosen = generator.permutation(len(parts))[: size * (2 if pairing == "none" else 1)]
        yield outcome_of(world, drawn(parts, chosen.tolist(), auditing.LATENTS), pairing)


def false_alarms(
    world: World, parts: Sequence[Part], pairing: Pairing, *, times: int, size: int
) -> dict[str, Any]:
    found = list(repeats(world, parts, pairing, times=times, size=size))
    latents = [int(gone.sum()) for gone, _, _ in found]
    tested = sum(int(tested.sum()) for _, tested, _ in found)
    return {
        "audits_with_a_false_latent": asdict(wilson(sum(n > 0 for n in latents), times, unit="audits")),
        "audits_not_ok": asdict(wilson(sum(outcome != "ok" for _, _, outcome in found), times, unit="audits")),
        "false_latents": asdict(wilson(sum(latents), tested, unit="latents")),
    }


def found_of(world: World, parts: Sequence[Part], truth_F: np.ndarray, *, times: int, size: int) -> dict[str, Any]:
    """Recall and precision over the repeats, of latents that were tested."""
    hits = wrong = there = 0
    outcomes: dict[str, int] = {}
    for gone, tested, outcome in repeats(world, parts, "tokens", times=times, size=size):
        hits += int((gone & truth_F).sum())
        wrong += int((gone & ~truth_F).sum())
        there += int((tested & truth_F).sum())
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return {
        "planted": int(truth_F.sum()),
        "recall": asdict(wilson(hits, there, unit="latents")),
        "precision": asdict(wilson(hits, hits + wrong, unit="latents")),
        "outcomes": outcomes,
    }


def truth_by_limits(world: World, parts: Sequence[Part]) -> np.ndarray:
    """Latents that lie outside the limits on all documents, by their points."""
    policy = world.params.audit.latents
    _, verdicts = judged(drawn(parts, range(len(parts)), auditing.LATENTS), policy, "tokens")
    assert verdicts.correlation is not None
    ratio_F = verdicts.activation.point_F
    outside = (ratio_F < policy.weakened_below) | (ratio_F > policy.grown_above)
    return outside | (verdicts.correlation.point_F < policy.same_correlation)


def named(latents: Sequence[int]) -> np.ndarray:
    return np.isin(np.arange(auditing.LATENTS), latents)


PLANTED: dict[str, tuple[Callable[[LlamaForCausalLM], None], np.ndarray | None]] = {
    "site scaled by 0.4": (auditing.scaled, np.ones(auditing.LATENTS, dtype=bool)),
    "two directions swapped": (auditing.swapped, named(SWAPPED)),
    "one direction silenced": (auditing.silenced, named(SILENCED)),
    "fine-tuned on one topic": (auditing.tuned_on_one_topic, None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--documents", type=int, default=48, help="of one audit")
    parser.add_argument("--pool", type=int, default=480, help="documents that audits are drawn from")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    choice = {"times": asked.repeats, "size": asked.documents}
    with tempfile.TemporaryDirectory() as folder:
        world, held = World.make(Path(folder)), documents(asked.pool)
        own = read(world, world.root / "v1", held)
        rounded = read(world, world.version("rounded", auditing.nothing), held)
        found: dict[str, Any] = {
            "repeats": asked.repeats,
            "documents": asked.documents,
            "pool": len(held),
            "other documents": false_alarms(world, own, "none", **choice),
            "rounded to bfloat16": false_alarms(world, rounded, "tokens", **choice),
        }
        for number, (name, (change, truth_F)) in enumerate(PLANTED.items()):
            parts = read(world, world.version(f"planted-{number}", change), held)
            known_F = truth_by_limits(world, parts) if truth_F is None else truth_F
            found[name] = found_of(world, parts, known_F, **choice)
    text = json.dumps(found, indent=1)
    print(text)
    if asked.json:
        asked.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
