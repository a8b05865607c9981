"""sparsify: the lines of its Trainer.fit round one batch, which cannot be called without a language model.

Order as there: b_dec at the batch's mean before the first step; unit norm; forward; firing; backward; the
gradient's part along the decoder off; step; tokens since the last firing.

# T token, D d_model, F latent
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import LONG_AGO, SILENT, Common, Contender, Reading
from benchmarks.peers.stubs import quiet
from benchmarks.recipe import Problem, Recipe

with quiet():
    from schedulefree import ScheduleFreeWrapper
    from sparsify.config import SparseCoderConfig, TrainConfig
    from sparsify.sign_sgd import SignSGD
    from sparsify.sparse_coder import SparseCoder
    from transformers import get_linear_schedule_with_warmup

AUXK = 1 / 32
"""Its AuxK is off by default; where latents are dead on purpose it is switched on, as in the source's paper."""


class Sparsify(Contender):
    """sparsify's SparseCoder, TopK."""

    library = "sparsify"
    version = version("eai-sparsify")

    def __init__(self, problem: Problem, recipe: Recipe, sample_TD: Tensor) -> None:  # noqa: ARG002
        super().__init__(problem, recipe)
        torch.manual_seed(problem.seed)
        coder = SparseCoderConfig(num_latents=problem.d_sae, k=problem.k)
        self.config = TrainConfig(coder, log_to_wandb=False, lr=recipe.lr, optimizer=recipe.optimiser or "signum")
        self.coder = SparseCoder(problem.d_model, coder, device="cpu", dtype=torch.float32)
        self.since_fired = torch.zeros(problem.d_sae, dtype=torch.long)
        self.fired = torch.zeros(problem.d_sae, dtype=torch.bool)
        self.steps_done = 0
        self._start_optimiser()

    def step(self, x_TD: Tensor) -> float:
        coder, config = self.coder, self.config
        if self.steps_done == 0:
            coder.b_dec.data = x_TD.mean(0)
        coder.set_decoder_norm_to_unit_norm()
        dead = self.since_fired > config.dead_feature_threshold if config.auxk_alpha > 0 else None
        variance = (x_TD - x_TD.mean(0)).pow(2).sum()
        out = coder(x=x_TD, y=x_TD, dead_mask=dead, total_variance=variance)
        self.fired[out.latent_indices.flatten()] = True
        fvu = float(out.fvu.detach())
        (out.fvu + config.auxk_alpha * out.auxk_loss + out.multi_topk_fvu / 8).backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.schedule is not None:
            self.schedule.step()
        self.since_fired += len(x_TD)
        self.since_fired[self.fired] = 0
        self.fired.zero_()
        self.steps_done += 1
        return fvu

    @torch.no_grad()
    def read(self, x_TD: Tensor, *, training: bool) -> Reading:  # noqa: ARG002
        values_TK, latents_TK, _ = self.coder.encode(x_TD)
        fires_TF = torch.zeros(len(x_TD), self.problem.d_sae, dtype=torch.bool)
        fires_TF.scatter_(1, latents_TK, values_TK > 0)
        return Reading(self.coder.decode(values_TK, latents_TK), fires_TF)

    @torch.no_grad()
    def put(self, weights: Common) -> None:
        self.coder.encoder.weight.copy_(weights.W_enc_DF.t())
        self.coder.encoder.bias.copy_(weights.b_enc)
        self.coder.W_dec.copy_(weights.W_dec_FD)
        self.coder.b_dec.zero_()
        # The averaging optimiser holds a second copy of the weights.
        self._start_optimiser()

    @torch.no_grad()
    def silence(self, latents: Tensor) -> None:
        self.coder.encoder.bias[latents] = SILENT
        self.since_fired[latents] = LONG_AGO
        self.config.auxk_alpha = AUXK
        self._start_optimiser()

    def finish(self) -> None:
        if isinstance(self.optimiser, ScheduleFreeWrapper):
            self.optimiser.eval()

    def decoder(self) -> Tensor:
        return self.coder.W_dec.detach()

    def settings(self) -> Mapping[str, Any]:
        return {
            "optimiser": "SignSGD, momentum 0.95, schedule-free" if self.schedule is None else "torch.optim.Adam",
            "lr": self.lr,
            "warm-up steps": 0 if self.schedule is None else self.warmup_steps,
            "decoder": "unit norm, parallel gradient removed",
            "gradient clip": None,
            "auxk_alpha": self.config.auxk_alpha,
        }

    def _start_optimiser(self) -> None:
        width = (self.problem.d_sae / 2**14) ** 0.5
        if self.config.optimizer == "signum":
            self.lr = self.config.lr or 5e-3 / width
            self.optimiser = ScheduleFreeWrapper(SignSGD(self.coder.parameters(), lr=self.lr), momentum=0.95)
            self.optimiser.train()
            self.schedule = None
            return
        self.lr = self.config.lr or 2e-4 / width
        self.optimiser = torch.optim.Adam(self.coder.parameters(), lr=self.lr)
        share = self.recipe.warmup
        self.warmup_steps = self.config.lr_warmup_steps if share is None else round(share * self.problem.steps)
        self.schedule = get_linear_schedule_with_warmup(self.optimiser, self.warmup_steps, self.problem.steps)
