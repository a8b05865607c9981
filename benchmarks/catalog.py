"""What the catalog costs beside encoding alone.

    python -m benchmarks.catalog --activations artifacts/activations --sae artifacts/sae --json catalog.json
    python benchmarks/training.py report … catalog.json --markdown docs/performance.md

# D d_model
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks import machine, report
from benchmarks.racing import Sample, Stopwatch, ratio
from saeops.activations.reader import ActivationSet
from saeops.activations.schema import TokenBatch
from saeops.activations.split import Split
from saeops.catalog.build import BATCH_TOKENS, split_layout
from saeops.catalog.contexts import contexts
from saeops.catalog.gather import Gathered, Wanted, gather
from saeops.catalog.layout import Layout
from saeops.catalog.neighbours import nearest
from saeops.catalog.schema import ContextTable
from saeops.catalog.windows import CodedBatch
from saeops.diagnostics.config import DiagnoseConfig
from saeops.sae.canonical import Sae
from saeops.sae.native import library
from saeops.sae.native.build import NotBuilt
from saeops.tables import write_table

KERNELS = Path(".cache") / "benchmarks" / "kernels"
TURN_BATCHES = 8


@dataclass
class Turns:
    """Encoding alone and encoding with the catalog, on the same batches, one after the other."""

    acts: ActivationSet
    sae: Sae
    layout: Layout
    split: Split
    tokens: int
    read: int = 0
    alone: list[Sample] = field(default_factory=list)
    with_catalog: list[Sample] = field(default_factory=list)

    def __iter__(self) -> Iterator[CodedBatch]:
        """Give the codes of one turn; what passes until the next is asked for is the catalog's work."""
        for number, batches in enumerate(self._in_memory()):
            # Who comes first changes, so that neither always finds the batches in the cache.
            if number % 2:
                self._encode(batches)
            watch = Stopwatch()
            for batch in batches:
                row_T = self.layout.rows(batch.document.long().numpy(), batch.position.long().numpy())
                yield CodedBatch(row_T, self.layout.window_start(row_T), self.sae.encode(batch.activations))
            self.with_catalog.append(watch.sample())
            if not number % 2:
                self._encode(batches)
            self.read += sum(len(batch) for batch in batches)
            print(f"{self.read:,} of {self.tokens:,} tokens", end="\r", file=sys.stderr)

    def _encode(self, batches: list[TokenBatch]) -> None:
        watch = Stopwatch()
        for batch in batches:
            self.sae.encode(batch.activations)
        self.alone.append(watch.sample())

    def _in_memory(self) -> Iterator[list[TokenBatch]]:
        held: list[TokenBatch] = []
        left = self.tokens
        for batch in self.acts.batches(self.sae.meta.site, self.split, BATCH_TOKENS):
            held.append(batch)
            left -= len(batch)
            if len(held) == TURN_BATCHES or left <= 0:
                yield held
                held = []
            if left <= 0:
                return
        if held:
            yield held


def measure(acts: ActivationSet, folder: Path, *, split: Split, tokens: int) -> dict[str, Any]:
    """One SAE's catalog."""
    sae, layout = Sae.load(folder), split_layout(acts, split)
    config = DiagnoseConfig()
    wanted = Wanted(config.top_contexts, config.quantiles, config.contexts_per_quantile, config.context_tokens)
    turns = Turns(acts, sae, layout, split, min(tokens, acts.count(sae.meta.site, split)))
    sae.encode(torch.zeros(BATCH_TOKENS, sae.meta.d_model))
    gathered = gather(turns, wanted, latents=sae.meta.d_sae, seed=0)
    finishing = Stopwatch()
    frame = contexts(gathered, layout, wanted)
    nearest(sae.W_dec)
    finished = finishing.sample()
    beside = ratio(turns.with_catalog, turns.alone, tolerance=1)
    assert beside is not None
    samples = [*turns.alone, *turns.with_catalog]
    seconds = sum(sample.seconds for sample in samples)
    return {
        "sae": _words(folder, sae),
        "d_sae": sae.meta.d_sae,
        "k": sae.k,
        "tokens": gathered.tokens,
        "alone_s": sum(sample.seconds for sample in turns.alone),
        "with_catalog_s": sum(sample.seconds for sample in turns.with_catalog),
        "ratio": beside.to_json(),
        "finishing_s": finished.seconds,
        "writing_s": _written(frame),
        "contexts": len(frame),
        "kept_bytes": _kept_bytes(gathered),
        "foreign": sum(sample.foreign * sample.seconds for sample in samples) / seconds,
        "alone": [asdict(sample) for sample in turns.alone],
        "with_catalog": [asdict(sample) for sample in turns.with_catalog],
    }


def _words(folder: Path, sae: Sae) -> str:
    manifest = json.loads((folder / "manifest.json").read_text())
    trained = manifest["summary"].get("tokens")
    count = "an unknown number of" if trained is None else f"{trained:,}"
    return f"F = {sae.meta.d_sae:,}: {sae.meta.variant}, trained on {count} tokens at {sae.meta.site}"


def _written(frame: pd.DataFrame) -> float:
    with tempfile.TemporaryDirectory() as folder:
        watch = Stopwatch()
        write_table(frame, Path(folder) / "contexts.parquet", ContextTable, rows=len(frame))
        return watch.sample().seconds


def _kept_bytes(gathered: Gathered) -> int:
    kept = [array for part in (gathered.top, gathered.sample) for array in vars(part).values()]
    return int(sum(array.nbytes for array in kept))


def main(arguments: Sequence[str]) -> None:
    """Measure each SAE, print the section, write the results."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    found = library.enable(KERNELS)
    if isinstance(found, NotBuilt):
        print(f"catalog: in plain torch and numpy ({found.reason})", file=sys.stderr)
    acts = ActivationSet.open(options.activations)
    rows = [measure(acts, folder, split=options.split, tokens=options.tokens) for folder in options.sae]
    done = {
        "kind": "catalog",
        "command": machine.command("-m benchmarks.catalog", arguments),
        "machine": machine.facts(),
        "tokens": f"{acts.model.get('ref', 'a model')}, {options.split} split",
        "rows": rows,
    }
    if options.json is not None:
        options.json.write_text(json.dumps(done, indent=1) + "\n")
    print(report.section(done))


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="benchmarks.catalog")
    found.add_argument("--activations", type=Path, required=True, help="activation set")
    found.add_argument("--sae", type=Path, nargs="+", required=True, help="folders of trained SAEs, one or more")
    found.add_argument("--split", default="train", help="of the activation set")
    found.add_argument("--tokens", type=int, default=1_000_000)
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--json", type=Path)
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
