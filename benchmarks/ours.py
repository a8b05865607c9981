"""saeops: the project's own training step, as `saeops train` makes it.

# T token, D d_model, F latent
"""

import math
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import LONG_AGO, SILENT, Common, Contender, Reading
from benchmarks.environment import CHECKOUT
from benchmarks.recipe import PREFIX_SHARES, Problem, Recipe
from benchmarks.same import oracle
from saeops.sae.canonical import Sae, SaeMeta
from saeops.sae.folding import fold
from saeops.sae.native import library
from saeops.sae.variants import BatchTopK, Gated, JumpReLU, Matryoshka, ReluL1, TargetL0, TopK, Variant
from saeops.training.checkpoint import CheckpointFolder
from saeops.training.config import TrainingConfig
from saeops.training.loop import step
from saeops.training.pairs import Pair
from saeops.training.schedule import Schedule
from saeops.training.state import begin

CPU = torch.device("cpu")
KERNELS = CHECKOUT / ".cache" / "benchmarks" / "kernels"
SHORTLIST_TOLERANCE = 1e-2
"""A latent that the shortlist misses moves the error by more than rounding does."""


class Ours(Contender):
    """saeops' loop, one step at a time: figures every few steps as always, one checkpoint at the end."""

    library = "saeops"

    def __init__(self, problem: Problem, recipe: Recipe, sample_TD: Tensor) -> None:
        super().__init__(problem, recipe)
        self.version = commit()
        if recipe.encoder == "shortlist":
            self.tolerance = SHORTLIST_TOLERANCE
        self.variant = variant_of(problem, recipe)
        self.config = config_of(problem, recipe)
        self.schedule = Schedule.of(self.config)
        sample = Pair.same(sample_TD)
        self.state = begin(self.variant, sample, d_sae=problem.d_sae, seed=problem.seed, device=CPU)
        self._folder = tempfile.TemporaryDirectory()
        self._checkpoints = CheckpointFolder(Path(self._folder.name), keep=1)
        self._folded: Sae | None = None
        self._kernels = "native"

    def step(self, x_TD: Tensor) -> float:
        self._folded = None
        batch = Pair.same(x_TD)
        done = step(self.state, batch, config=self.config, schedule=self.schedule, checkpoints=self._checkpoints)
        return math.nan if done.point is None else done.point.loss

    @torch.no_grad()
    def read(self, x_TD: Tensor, *, training: bool) -> Reading:
        sae = self.folded()
        if training and self.problem.variant in ("batch_topk", "matryoshka"):
            # Over the whole batch; the canonical form holds the threshold instead.
            common = Common(sae.W_enc, sae.b_enc, sae.W_dec, 0.0)
            centred_TD = x_TD - sae.b_dec if sae.meta.apply_b_dec_to_input else x_TD
            reading = oracle(self.problem.variant, common, centred_TD, k=self.problem.k)
            return Reading(reading.x_hat_TD + sae.b_dec, reading.fires_TF)
        codes = sae.encode(x_TD)
        return Reading(sae.decode(codes), codes.dense() > 0)

    def training_fvu(self, x_TD: Tensor) -> float:
        """From the very forward pass that training differentiates."""
        pair = self.state.normalisation.apply(Pair.same(x_TD))
        dead = torch.zeros(self.problem.d_sae, dtype=torch.bool)
        # A forward pass moves running figures, such as a threshold; a look must leave no trace.
        running = {name: buffer.clone() for name, buffer in self.state.sae.named_buffers()}
        outcome = self.state.sae.outcome(pair.x_TD - self.state.sae.centre, pair.y_TE, dead=dead, progress=0.0)
        for name, buffer in self.state.sae.named_buffers():
            buffer.copy_(running[name])
        return float(outcome.mse.detach()) / float(pair.y_TE.var(0, correction=0).mean())

    @torch.no_grad()
    def put(self, weights: Common) -> None:
        """On s·(x − μ): the bias takes back what centring removed, thresholds grow with the scale."""
        self._folded = None
        sae, normalisation = self.state.sae, self.state.normalisation.input
        scale = normalisation.scale
        bias = scale * (weights.b_enc + normalisation.mean @ weights.W_enc_DF)
        sae.W_enc_FD.copy_(weights.W_enc_DF.t())
        sae.W_dec_FE.copy_(weights.W_dec_FD)
        sae.b_dec.copy_(-scale * normalisation.mean)
        sae.centre.zero_()
        threshold = scale * weights.threshold
        match self.problem.variant:
            case "relu_l1":
                sae.b_enc.copy_(bias - threshold)
            case "gated":
                sae.b_enc.copy_(bias - threshold)
                sae.b_mag.copy_(bias)
                sae.r_mag.zero_()
            case "jumprelu":
                sae.b_enc.copy_(bias)
                sae.log_threshold.fill_(math.log(threshold))
            case _:
                sae.b_enc.copy_(bias)

    @torch.no_grad()
    def silence(self, latents: Tensor) -> None:
        self.state.sae.b_enc[latents] = SILENT
        self.state.silent.count[latents] = LONG_AGO

    def decoder(self) -> Tensor:
        return self.state.sae.weights().W_dec_FE

    def settings(self) -> Mapping[str, Any]:
        shortlist = getattr(self.state.sae, "shortlist", None)
        shown = (
            "lr",
            "warmup_fraction",
            "decay_fraction",
            "gradient_clip",
            "dead_after_tokens",
            "log_every_steps",
        )
        return {
            **self.variant.model_dump(mode="json"),
            **{name: getattr(self.config, name) for name in shown},
            "normalisation": "mean 0, E|x|^2 = d_model",
            "kernels": self._kernels,
            "recall": None if shortlist is None else float(shortlist.recall),
        }

    def ready(self) -> None:
        """Kernels are on or off for the whole process; several of our recipes take turns in it."""
        if self.recipe.kernels == "torch":
            library.disable()
            self._kernels = "torch"
        elif library.for_tensors() is None:
            enabled = library.enable(KERNELS)
            self._kernels = "native" if isinstance(enabled, library.Library) else f"torch: {enabled.reason}"

    def folded(self) -> Sae:
        """The canonical form, as it is published."""
        if self._folded is None:
            self._folded = folded(self.state, self.problem)
        return self._folded


def folded(state: Any, problem: Problem) -> Sae:
    """The canonical form of a run."""
    meta = SaeMeta(
        variant=problem.variant,
        site="benchmark",
        d_model=problem.d_model,
        d_sae=problem.d_sae,
        k=problem.k if problem.variant == "topk" else None,
    )
    return fold(state.sae.weights(), meta, input=state.reading, target=state.normalisation.target)


def variant_of(problem: Problem, recipe: Recipe) -> Variant:
    """The variant as a user would write it in params."""
    penalty = {} if recipe.coefficient is None else {"l1_coefficient": recipe.coefficient}
    match problem.variant:
        case "topk":
            return TopK(k=problem.k, encoder=recipe.encoder or "exact")
        case "batch_topk":
            return BatchTopK(k=problem.k)
        case "matryoshka":
            return Matryoshka(k=problem.k, prefixes=PREFIX_SHARES)
        case "jumprelu":
            penalty = {} if recipe.coefficient is None else {"coefficient": recipe.coefficient}
            return JumpReLU(sparsity=TargetL0(target=problem.k, **penalty))
        case "relu_l1":
            return ReluL1(**penalty)
        case "gated":
            return Gated(**penalty)


def config_of(problem: Problem, recipe: Recipe) -> TrainingConfig:
    """The loop's params: the project's defaults, and what the recipe changes."""
    changed = {"lr": recipe.lr, "warmup_fraction": recipe.warmup, "decay_fraction": recipe.decay}
    return TrainingConfig(
        tokens=problem.steps * problem.batch,
        batch_size=problem.batch,
        checkpoint_every_steps=problem.steps,
        **{name: value for name, value in changed.items() if value is not None},
    )


@cache
def commit() -> str:
    """The checkout's commit, and whether it was changed since."""
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or "unknown"
