"""Do our figures agree with SAELens' own evaluation, on the same weights and the same tokens?

Exports an SAE to SAELens, lets SAELens' evaluation read eval documents through it, and measures the same windows
with what `saeops diagnose` is made of. Where SAELens defines a figure otherwise, its definition is restated from
our own sums: what is left then is rounding, so that nothing but the definition differs.

    python -m benchmarks.oracle [--artifacts FOLDER] [--windows N] [--json FILE] [--environment FOLDER]

Needs `artifacts/activations` and `artifacts/sae` (an autoencoder at a resid_post site). Runs in the peers'
environment, as benchmarks/training.py does. Prints a table, and ends with 1 where more than 1e-4 is left.

# B window, W position in a window, T counted token, D d_model
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks import environment

TOLERANCE = 1e-4
"""Largest |theirs − ours| / max(1, |theirs|)."""
PACKAGES = ("sae-lens", "torch", "transformers")
BATCH = 4
"""Windows a batch of SAELens' evaluation."""


@dataclass(frozen=True)
class Row:
    """One figure of SAELens beside ours."""

    theirs: str
    ours: str
    value_theirs: float
    value_ours: float
    restated: float
    """Their definition, from our sums; ours itself where the definitions are one."""
    differs: str
    """How the definitions differ; empty where they do not."""

    @property
    def left(self) -> float:
        """What is left of the difference once the definition is the same."""
        return abs(self.value_theirs - self.restated) / max(1.0, abs(self.value_theirs))

    @property
    def same(self) -> bool:
        return self.left <= TOLERANCE


# ── our side ────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Sums:
    """What our diagnostics add up on the windows."""

    tokens: pd.DataFrame
    """The sums of each counted token, with the number of its batch; μ is the mean of all."""
    by_batch: pd.DataFrame
    """The same, μ the mean of the token's own batch."""
    fidelity: pd.DataFrame
    """Fidelity's sums, without those that no figure of SAELens needs."""
    to_the_end: Mapping[str, float]
    """Mean KL with the last position of each window too: `kl` with the reconstruction, `kl_zero` with zeros."""
    zero_everywhere: float
    """Σ CE with every position at 0, those that do not count too."""


def our_sums(model: Any, sae: Any, batches: Sequence[Tensor], ignored: Sequence[int]) -> Sums:
    """Our sums on windows of one length; positions that hold an ignored token do not count."""
    from saeops.diagnostics.reconstruction import Meter, TokenSums

    site = sae.meta.site
    kept = [model.capture(ids_BW, [site])[site][counts(ids_BW, ignored)] for ids_BW in batches]
    of_T = torch.cat([torch.full((len(x_TD),), number) for number, x_TD in enumerate(kept)])
    x_TD = torch.cat(kept)
    codes = sae.encode(x_TD)
    x_hat_TD = sae.decode(codes)
    means = torch.stack([part_TD.double().mean(0) for part_TD in kept])

    def frame(mean: Tensor) -> pd.DataFrame:
        meter = Meter(len(x_TD))
        meter.add(torch.arange(len(x_TD)), TokenSums.of(x_TD, x_hat_TD, mean, codes.l0()))
        return meter.frame().assign(batch=of_T.numpy())

    return Sums(frame(x_TD.double().mean(0)), frame(means[of_T]), *_fidelity(model, sae, batches, ignored))


def _fidelity(
    model: Any, sae: Any, batches: Sequence[Tensor], ignored: Sequence[int]
) -> tuple[pd.DataFrame, dict[str, float], float]:
    from saeops.diagnostics.fidelity import FidelitySums, WindowBatch, by_document, fidelity_sums

    def run(ids_BW: Tensor, edit: Any) -> Tensor:
        return model.logits(ids_BW, sae.meta.sites.edits(edit))

    def run_everywhere(ids_BW: Tensor, edit: Any) -> Tensor:
        """What is put in at the counted positions, zeros, at every position."""

        def whole(x_BWD: Tensor, y_BWD: Tensor) -> Tensor:
            edited = edit(x_BWD, y_BWD)
            return edited if edited is y_BWD else torch.zeros_like(edited)

        return run(ids_BW, whole)

    def windows(*, further: int) -> list[Any]:
        """The windows, with so many positions behind them, which causal attention never looks at."""
        padded = [torch.nn.functional.pad(ids_BW, (0, further)) for ids_BW in batches]
        return [WindowBatch(torch.zeros(len(ids), dtype=torch.long), ids, lengths(ids)) for ids in padded]

    def mask(ids_BW: Tensor, *_: Tensor) -> Tensor:
        return counts(ids_BW, ignored)

    def mask_but_last(ids_BW: Tensor, *_: Tensor) -> Tensor:
        # The position behind the window gives its last one a "next token", so that its KL is counted.
        return counts(ids_BW, ignored) & (torch.arange(ids_BW.shape[1]) < ids_BW.shape[1] - 1)

    def zero(_: Tensor, y_TD: Tensor) -> Tensor:
        return torch.zeros_like(y_TD)

    def reconstructed(x_TD: Tensor, _: Tensor) -> Tensor:
        return sae.reconstruct(x_TD)

    def summed(run: Any, batches: list[Any], mask: Any, splices: dict[str, Any]) -> FidelitySums:
        return by_document(list(fidelity_sums(lambda ids_BW: partial(run, ids_BW), batches, mask, splices)))

    sums = summed(run, windows(further=0), mask, {"sae": reconstructed, "zero": zero})
    frame = pd.DataFrame(
        {
            "predictions": sums.tokens,
            "ce_clean": sums.clean,
            "ce_spliced": sums.spliced["sae"],
            "ce_zero": sums.spliced["zero"],
            "kl": sums.kl["sae"],
        }
    )
    zeros = summed(run_everywhere, windows(further=0), mask, {"zero": zero})
    end = summed(run, windows(further=1), mask_but_last, {"sae": reconstructed})
    end_zero = summed(run_everywhere, windows(further=1), mask_but_last, {"zero": zero})
    kl = {
        "kl": end.kl["sae"].sum() / end.tokens.sum(),
        "kl_zero": end_zero.kl["zero"].sum() / end_zero.tokens.sum(),
    }
    return frame, kl, float(zeros.spliced["zero"].sum())


def counts(ids_BW: Tensor, ignored: Sequence[int]) -> Tensor:
    """SAELens' mask: every position but those that hold an ignored token."""
    return ~torch.isin(ids_BW, torch.tensor(ignored))


def lengths(ids_BW: Tensor) -> Tensor:
    return torch.full((len(ids_BW),), ids_BW.shape[1])


def compared(theirs: Mapping[str, float], sums: Sums) -> Iterator[Row]:
    """Every figure of SAELens with ours beside it."""
    from saeops.diagnostics.metrics import FIDELITY, L0, RECONSTRUCTION
    from saeops.stats import Bootstrap

    draw = Bootstrap(resamples=10, seed=0)
    token, f = sums.tokens, sums.fidelity
    everything = token.drop(columns="batch").sum().to_frame().T
    ours = {metric.name: metric.measure(everything, draw).point for metric in (*RECONSTRUCTION, *L0)}
    needed = ("ce_clean_nats", "delta_ce_nats", "ce_recovered_zero", "kl_nats")
    ours |= {metric.name: metric.measure(f, draw).point for metric in FIDELITY if metric.name in needed}
    with_sae, with_zero = "ce_clean_nats + delta_ce_nats", "Σ CE_zero / n"
    ours[with_sae] = ours["ce_clean_nats"] + ours["delta_ce_nats"]
    total = {name: float(f[name].sum()) for name in ("predictions", "ce_clean", "ce_spliced", "ce_zero")}
    ours[with_zero] = total["ce_zero"] / total["predictions"]
    by_batch = token.groupby("batch")[["norm_out", "dot"]].sum()
    length_in, length_out = token["square"] ** 0.5, token["norm_out"] ** 0.5
    width = float((token["values"] / token["tokens"]).iloc[0])
    kl, kl_zero = sums.to_the_end["kl"], sums.to_the_end["kl_zero"]

    def row(name: str, own: str, restated: float | None = None, differs: str = "") -> Row:
        value = ours.get(own, float("nan"))
        return Row(name, own, theirs[name], value, value if restated is None else restated, differs)

    yield row("explained_variance", "explained_variance")
    yield row("cossim", "cosine")
    yield row("l0", "l0")
    yield row("ce_loss_without_sae", "ce_clean_nats")
    yield row("ce_loss_with_sae", with_sae)
    yield row("mse", "mse", ours["mse"] * width, "not divided by D")
    yield row(
        "relative_reconstruction_bias",
        "relative_reconstruction_bias",
        float((by_batch["norm_out"] / by_batch["dot"]).mean()),
        "mean of the batches' ratios, not a ratio of sums",
    )
    yield row(
        "explained_variance_legacy",
        "explained_variance",
        float((1 - sums.by_batch["error"] / sums.by_batch["spread"]).mean()),
        "mean of each token's ratio, μ the batch's",
    )
    last = "the last position of a window counts too"
    everywhere = "zeros at every position, the masked ones too"
    yield row("kl_div_with_sae", "kl_nats", kl, last)
    yield row("ce_loss_with_ablation", with_zero, sums.zero_everywhere / total["predictions"], everywhere)
    yield row(
        "ce_loss_score",
        "ce_recovered_zero",
        (sums.zero_everywhere - total["ce_spliced"]) / (sums.zero_everywhere - total["ce_clean"]),
        everywhere,
    )
    yield row("kl_div_with_ablation", "", kl_zero, "not ours; both of the above")
    yield row("kl_div_score", "", (kl_zero - kl) / kl_zero, "not ours: (KL_zero − KL_sae) / KL_zero")
    yield row("l2_norm_in", "", float(length_in.mean()), "not ours: mean ‖x‖")
    yield row("l2_norm_out", "", float(length_out.mean()), "not ours: mean ‖x̂‖")
    yield row("l2_ratio", "", float((length_out / length_in).mean()), "not ours: mean of ‖x̂‖ / ‖x‖")


# ── SAELens' side ───────────────────────────────────────────────────────────


class Store:
    """What SAELens' evaluation asks its ActivationsStore for: the next batch of tokens."""

    def __init__(self, batches: Sequence[Tensor]) -> None:
        self._next = iter(batches)

    def get_batch_tokens(self, _: int) -> Tensor:
        return next(self._next)


def their_figures(
    model_folder: Path, sae: Any, batches: Sequence[Tensor], ignored: Sequence[int]
) -> dict[str, float]:
    """SAELens' own evaluation of our SAE, exported and loaded there."""
    from sae_lens import SAE, evals
    from sae_lens.load_model import load_model
    from sae_lens.training.activation_scaler import ActivationScaler

    from saeops.files import write_atomic
    from saeops.refs import parse_site
    from saeops.sae.formats import saelens

    with tempfile.TemporaryDirectory() as folder:
        for name, data in saelens.files_of(sae).items():
            write_atomic(Path(folder) / name, data)
        loaded = SAE.load_from_disk(folder)
    # Its wrapper of transformers' models knows hooks by the modules' own names.
    loaded.cfg.metadata.hook_name = hook = f"model.layers.{parse_site(sae.meta.site)[0]}"
    model = load_model("AutoModelForCausalLM", str(model_folder), "cpu", {"dtype": torch.float32}, [hook])
    model.eval()
    shared: dict[str, Any] = {
        "n_batches": len(batches),
        "eval_batch_size_prompts": BATCH,
        "ignore_tokens": list(ignored),
        "model_kwargs": {},
    }
    downstream = evals.get_downstream_reconstruction_metrics(
        loaded, model, Store(batches), ActivationScaler(), compute_kl=True, compute_ce_loss=True, **shared
    )
    within, _ = evals.get_sparsity_and_variance_metrics(
        loaded,
        model,
        Store(batches),
        ActivationScaler(),
        compute_l2_norms=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
        compute_featurewise_density_statistics=False,
        **shared,
    )
    return {**downstream, **within}


# ── the table ───────────────────────────────────────────────────────────────


def whole_windows(acts: Any, model: Any, site: str, wanted: int, ignored: Sequence[int]) -> list[Tensor]:
    """Batches of full eval windows on which SAELens' mask, by token ids, is the token policy's own."""
    from saeops.activations.windows import norm_mask, pad_windows, position_mask, window_lengths

    chosen: list[Tensor] = []
    for window in acts.windows("eval"):
        ids_BW = pad_windows([window])
        if len(window.ids) < acts.context_size or len(chosen) == wanted:
            continue
        x_BWD = model.capture(ids_BW, [site])[site]
        own_BW = position_mask(ids_BW, window_lengths([window]), acts.policy, model.special_ids, bos=acts.bos)
        if torch.equal(own_BW & norm_mask(x_BWD, acts.norm_limit(site)), counts(ids_BW, ignored)):
            chosen.append(ids_BW)
    return [torch.cat(chosen[start : start + BATCH]) for start in range(0, len(chosen) - BATCH + 1, BATCH)]


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| SAELens | value | saeops | value | their definition, from our sums | left | what differs |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        own, value = (f"`{row.ours}`", f"{row.value_ours:.6f}") if row.ours else ("", "")
        lines.append(
            f"| `{row.theirs}` | {row.value_theirs:.6f} | {own} | {value} | {row.restated:.6f} | {row.left:.1e} "
            f"| {row.differs or 'nothing'} |{'' if row.same else '  ← MISMATCH'}"
        )
    return "\n".join(lines)


def measure(artifacts: Path, windows: int) -> tuple[str, list[Row]]:
    """What was measured on, and the rows."""
    from saeops.activations.reader import ActivationSet, check_model
    from saeops.adapters.model_source import resolve_model
    from saeops.adapters.models import TransformersModel
    from saeops.params import ModelParams
    from saeops.sae.canonical import Sae

    acts, sae = ActivationSet.open(artifacts / "activations"), Sae.load(artifacts / "sae")
    cache = Path(os.environ.get("SAEOPS_CACHE", Path.home() / ".cache" / "saeops"))
    folder = resolve_model(ModelParams(ref=acts.model["ref"], sha256=None), cache, lambda _: None)
    model = TransformersModel(folder, device="cpu")
    check_model(acts, model.identity.digest)
    ignored = sorted(model.special_ids | ({acts.bos} if acts.bos is not None else set()))
    batches = whole_windows(acts, model, sae.meta.site, windows, ignored)
    theirs = their_figures(folder.path, sae, batches, ignored)
    rows = list(compared(theirs, our_sums(model, sae, batches, ignored)))
    counted = int(sum(counts(ids_BW, ignored).sum() for ids_BW in batches))
    facts = f"{sae.meta.variant}, {sae.meta.d_sae:,} latents at {sae.meta.site} of {Path(acts.model['ref']).name}"
    return f"{facts}; {BATCH * len(batches)} windows, {counted:,} counted tokens", rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="holds activations/ and sae/")
    parser.add_argument("--windows", type=int, default=32, help="eval windows to read")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as JSON too")
    parser.add_argument("--environment", type=Path, default=environment.DEFAULT, help="where the libraries are")
    arguments = parser.parse_args()
    if not environment.inside(arguments.environment):
        environment.enter(arguments.environment.absolute(), "benchmarks.oracle", sys.argv[1:])
    warnings.filterwarnings("ignore")
    file: Path | None = arguments.json
    with contextlib.redirect_stdout(sys.stderr):
        facts, rows = measure(arguments.artifacts, arguments.windows)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    sys.stdout.write(", ".join(f"{name} {version}" for name, version in versions.items()) + f"; {facts}\n\n")
    sys.stdout.write(table(rows) + "\n")
    if file is not None:
        found = [{**asdict(row), "left": row.left, "same": row.same} for row in rows]
        file.write_text(json.dumps({"versions": versions, "on": facts, "rows": found}, indent=1) + "\n")
    return 0 if all(row.same for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
