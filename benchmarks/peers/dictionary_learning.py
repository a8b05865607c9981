"""dictionary_learning: its trainers' update (Adam, clipping to 1, unit decoder, AuxK, thresholds).

# T token, D d_model, F latent
"""

import math
from collections.abc import Mapping
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import LONG_AGO, SILENT, Common, Contender, Reading
from benchmarks.peers.stubs import quiet, stub
from benchmarks.recipe import Problem, Recipe

# Only its buffer, which reads a language model, needs nnsight.
stub("nnsight")
with quiet():
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.gdm import GatedSAETrainer
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
    from dictionary_learning.trainers.standard import StandardTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

TRAINERS = {
    "topk": TopKTrainer,
    "batch_topk": BatchTopKTrainer,
    "matryoshka": MatryoshkaBatchTopKTrainer,
    "jumprelu": JumpReluTrainer,
    "relu_l1": StandardTrainer,
    "gated": GatedSAETrainer,
}
WITH_K = ("topk", "batch_topk", "matryoshka")
DEFAULT_WARMUP = 1000
DEFAULT_SPARSITY_WARMUP = 2000
DEFAULT_THRESHOLD_START = 1000


class DictionaryLearning(Contender):
    """One of dictionary_learning's trainers."""

    library = "dictionary_learning"
    version = version("dictionary-learning")

    def __init__(self, problem: Problem, recipe: Recipe, sample_TD: Tensor) -> None:
        super().__init__(problem, recipe)
        # Its trainers do not all take the seed to heart.
        torch.manual_seed(problem.seed)
        self.arguments = _arguments(problem, recipe)
        self.trainer = TRAINERS[problem.variant](
            activation_dim=problem.d_model,
            dict_size=problem.d_sae,
            layer=0,
            lm_name="activations",
            device="cpu",
            seed=problem.seed,
            **self.arguments,
        )
        self.ae = self.trainer.ae
        # As its trainSAE(normalize_activations=True) does: unit mean squared norm.
        self.norm = float(sample_TD.square().sum(1).mean().sqrt()) if recipe.normalise else 1.0
        self.steps_done = 0

    def step(self, x_TD: Tensor) -> float:
        loss = self.trainer.update(self.steps_done, x_TD / self.norm if self.norm != 1 else x_TD)
        self.steps_done += 1
        return math.nan if loss is None else float(loss)

    @torch.no_grad()
    def read(self, x_TD: Tensor, *, training: bool) -> Reading:
        x_TD = x_TD / self.norm
        by_batch = training and self.problem.variant in ("batch_topk", "matryoshka")
        f_TF = self.ae.encode(x_TD, use_threshold=False) if by_batch else self.ae.encode(x_TD)
        return Reading(self.ae.decode(f_TF) * self.norm, f_TF > 0)

    @torch.no_grad()
    def put(self, weights: Common) -> None:
        ae, bias, threshold = self.ae, weights.b_enc / self.norm, weights.threshold / self.norm
        match self.problem.variant:
            case "matryoshka" | "jumprelu":
                ae.W_enc.copy_(weights.W_enc_DF)
                ae.W_dec.copy_(weights.W_dec_FD)
                ae.b_enc.copy_(bias)
                ae.b_dec.zero_()
            case _:
                ae.encoder.weight.copy_(weights.W_enc_DF.t())
                ae.decoder.weight.copy_(weights.W_dec_FD.t())
        match self.problem.variant:
            case "topk" | "batch_topk":
                ae.encoder.bias.copy_(bias)
                ae.b_dec.zero_()
            case "relu_l1":
                ae.encoder.bias.copy_(bias - threshold)
                ae.bias.zero_()
            case "gated":
                ae.gate_bias.copy_(bias - threshold)
                ae.mag_bias.copy_(bias)
                ae.r_mag.zero_()
                ae.decoder_bias.zero_()
            case "jumprelu":
                ae.threshold.fill_(threshold)

    @torch.no_grad()
    def silence(self, latents: Tensor) -> None:
        match self.problem.variant:
            case "matryoshka" | "jumprelu":
                bias = self.ae.b_enc
            case "gated":
                bias = self.ae.gate_bias
            case _:
                bias = self.ae.encoder.bias
        bias[latents] = SILENT
        if hasattr(self.trainer, "num_tokens_since_fired"):
            self.trainer.num_tokens_since_fired[latents] = LONG_AGO

    def decoder(self) -> Tensor:
        return (self.ae.W_dec if hasattr(self.ae, "W_dec") else self.ae.decoder.weight.t()).detach()

    def settings(self) -> Mapping[str, Any]:
        return {
            "trainer": type(self.trainer).__name__,
            "optimiser": "torch.optim.Adam",
            "lr": self.trainer.lr if hasattr(self.trainer, "lr") else None,
            "activations divided by": self.norm,
            **{name: value for name, value in self.arguments.items() if name != "lr"},
        }


def _arguments(problem: Problem, recipe: Recipe) -> dict[str, Any]:
    """The trainer's arguments: its defaults, and its warm-ups cut short where the run is shorter than they are."""
    steps = problem.steps
    share = recipe.warmup
    warmup = min(DEFAULT_WARMUP, steps // 10) if share is None else round(share * steps)
    arguments: dict[str, Any] = {"steps": steps, "warmup_steps": warmup}
    if recipe.lr is not None:
        arguments["lr"] = recipe.lr
    if recipe.decay:
        arguments["decay_start"] = steps - round(recipe.decay * steps)
    if problem.variant in WITH_K:
        arguments["k"] = problem.k
        arguments["threshold_start_step"] = min(DEFAULT_THRESHOLD_START, steps // 2)
    else:
        arguments["sparsity_warmup_steps"] = min(DEFAULT_SPARSITY_WARMUP, steps // 5)
    if problem.variant == "matryoshka":
        edges = [0, *problem.prefixes]
        arguments["group_fractions"] = [(b - a) / problem.d_sae for a, b in pairwise(edges)]
    if problem.variant == "jumprelu":
        arguments["target_l0"] = float(problem.k)
    if recipe.coefficient is not None:
        arguments["sparsity_penalty" if problem.variant == "jumprelu" else "l1_penalty"] = recipe.coefficient
    return arguments
