"""What a monitor costs the model that it watches.

    python -m benchmarks.monitor --dictionary DIGEST --json monitor.json
    python benchmarks/training.py report … monitor.json --markdown docs/performance.md

Tokens a second of one model with a monitor attached and without, in turns: prefill of whole windows, and
generation of one token at a time with a key-value cache.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from prometheus_client import CollectorRegistry
from transformers import AutoModelForCausalLM, AutoTokenizer

import saeops
from benchmarks import machine, report
from benchmarks.racing import Sample, clean, ratio, timed
from saeops.adapters.model_source import resolve_model
from saeops.dictionary.handle import Dictionary
from saeops.params import ModelParams
from saeops.sae.native import library
from saeops.settings import Settings

Work = Callable[[], Any]


def measure(dictionary: Dictionary, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Each kind of work with and without a monitor."""
    settings = Settings.from_environment(Path())
    ref = dictionary.provenance.params["model"]["ref"]
    folder = resolve_model(ModelParams(ref=ref), settings.cache, print).path
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = _text(tokenizer, options.batch, options.context)
    short = ids[:1, :32]

    def prefill() -> None:
        model(ids, use_cache=False, logits_to_keep=1)

    def generate() -> None:
        mask = torch.ones_like(short)
        wanted = {"max_new_tokens": options.new, "min_new_tokens": options.new, "do_sample": False}
        model.generate(short, attention_mask=mask, pad_token_id=0, **wanted)

    works = {
        f"prefill, {options.batch} × {options.context} tokens": (prefill, ids.numel()),
        f"generation, {options.new} tokens, one sequence": (generate, options.new),
    }
    return [
        _turns(name, work, tokens, dictionary, (model, tokenizer), options)
        for name, (work, tokens) in works.items()
    ]


def _turns(
    name: str, work: Work, tokens: int, dictionary: Dictionary, watched: Any, options: argparse.Namespace
) -> dict[str, Any]:
    alone: list[Sample] = []
    beside: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        monitor = saeops.Monitor(dictionary, *watched, folder=folder, registry=CollectorRegistry())
        with monitor:
            work()
        for turn in range(options.most_rounds):
            # Who comes first changes.
            for attached in (turn % 2 == 0, turn % 2 == 1):
                if attached:
                    with monitor:
                        beside.append(timed(work, 1))
                else:
                    alone.append(timed(work, 1))
            pairs = zip(alone, beside, strict=True)
            if sum(all(clean(each, options.tolerance) for each in pair) for pair in pairs) >= options.rounds:
                break
        found = ratio(beside, alone, tolerance=options.tolerance)
        if found is None:
            # Others' work would be taken for the monitor's.
            raise SystemExit(f"{name}: in none of {len(alone)} turns was the machine quiet; run it again alone")
        fired = int(monitor.tally.firings_L.sum())
    print(f"{name}: {found}", file=sys.stderr)
    return {
        "work": name,
        "tokens": tokens,
        "alone_s": sorted(each.seconds for each in alone)[len(alone) // 2],
        "monitored_s": sorted(each.seconds for each in beside)[len(beside) // 2],
        "ratio": found.to_json(),
        "rounds": len(alone),
        "foreign": sum(each.foreign for each in (*alone, *beside)) / (2 * len(alone)),
        "firings_per_token": fired / max(monitor.tally.tokens, 1),
    }


def _text(tokenizer: Any, batch: int, context: int) -> torch.Tensor:
    import pydoc_data.topics

    text = "\n".join(value for _, value in sorted(pydoc_data.topics.topics.items()))
    return torch.tensor(tokenizer(text[: batch * context * 12])["input_ids"][: batch * context]).view(
        batch, context
    )


def main(arguments: Sequence[str]) -> None:
    """Measure, print the section, write the results."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    dictionary = saeops.load(options.dictionary)
    library.enable(Settings.from_environment(Path()).cache / "kernels")
    meta = dictionary.sae.meta
    done = {
        "kind": "monitor",
        "command": machine.command("-m benchmarks.monitor", arguments),
        "machine": machine.facts(),
        "model": dictionary.provenance.model["ref"],
        "sae": f"{meta.variant}, F = {meta.d_sae:,}, k = {meta.k} at {meta.site}",
        "trusted": len(dictionary.features()),
        "rows": measure(dictionary, options),
    }
    if options.json is not None:
        options.json.write_text(json.dumps(done, indent=1) + "\n")
    print(report.section(done))


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="benchmarks.monitor")
    found.add_argument("--dictionary", required=True, help="reference or folder, as saeops.load takes it")
    found.add_argument("--batch", type=int, default=4)
    found.add_argument("--context", type=int, default=128)
    found.add_argument("--new", type=int, default=32)
    found.add_argument("--rounds", type=int, default=8, help="in which nobody else used the machine")
    found.add_argument("--most-rounds", type=int, default=20)
    found.add_argument("--tolerance", type=float, default=0.08)
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--json", type=Path)
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
