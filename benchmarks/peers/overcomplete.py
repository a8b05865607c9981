"""overcomplete: its train_sae on one batch (Adam, clipping to 1, dead-code tracker), with the loss of its README.

# T token, D d_model, F latent
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import SILENT, Common, Contender, Reading
from benchmarks.peers.stubs import quiet, stub
from benchmarks.recipe import Problem, Recipe

# Wrappers of vision models and plots of images: they need torchvision, timm and opencv.
stub("overcomplete.models", "overcomplete.visualization")
with quiet():
    from overcomplete.sae import BatchTopKSAE, TopKSAE, train_sae
    from overcomplete.sae.losses import top_k_auxiliary_loss

README_LR = 5e-4


class Overcomplete(Contender):
    """overcomplete's TopKSAE and BatchTopKSAE."""

    library = "overcomplete"
    version = version("overcomplete")

    def __init__(self, problem: Problem, recipe: Recipe, sample_TD: Tensor) -> None:  # noqa: ARG002
        super().__init__(problem, recipe)
        torch.manual_seed(problem.seed)
        if problem.variant == "topk":
            self.sae = TopKSAE(problem.d_model, nb_concepts=problem.d_sae, top_k=problem.k)
        else:
            top_k = problem.k * problem.batch
            self.sae = BatchTopKSAE(problem.d_model, nb_concepts=problem.d_sae, top_k=top_k)
        self.lr = recipe.lr or README_LR
        self.optimiser = torch.optim.Adam(self.sae.parameters(), lr=self.lr)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self._share_of_lr)
        self.auxiliary = False
        self._loss = torch.tensor(0.0)

    def step(self, x_TD: Tensor) -> float:
        train_sae(
            self.sae,
            [x_TD],
            self._criterion,
            self.optimiser,
            self.schedule,
            nb_epochs=1,
            monitoring=0,
            device="cpu",
        )
        return float(self._loss)

    @torch.no_grad()
    def read(self, x_TD: Tensor, *, training: bool) -> Reading:
        if self.problem.variant == "topk" or not training:
            self.sae.train(training)
            _, f_TF, x_hat_TD = self.sae(x_TD)
            return Reading(x_hat_TD, f_TF > 0)
        kept = self.sae.top_k, self.sae.running_threshold
        self.sae.train()
        self.sae.top_k = self.problem.k * len(x_TD)
        _, f_TF, x_hat_TD = self.sae(x_TD)
        self.sae.top_k, self.sae.running_threshold = kept
        return Reading(x_hat_TD, f_TF > 0)

    @torch.no_grad()
    def put(self, weights: Common) -> None:
        linear = self.sae.encoder.final_block[0]
        linear.weight.copy_(weights.W_enc_DF.t())
        linear.bias.copy_(weights.b_enc)
        self.sae.dictionary._weights.copy_(weights.W_dec_FD)

    @torch.no_grad()
    def silence(self, latents: Tensor) -> None:
        self.sae.encoder.final_block[0].bias[latents] = SILENT
        self.auxiliary = True

    def decoder(self) -> Tensor:
        return self.sae.get_dictionary().detach()

    def settings(self) -> Mapping[str, Any]:
        return {
            "optimiser": "torch.optim.Adam",
            "lr": self.lr,
            "gradient clip": 1.0,
            "decoder": "normalised in every forward pass, no bias",
            "auxiliary loss": "top_k_auxiliary_loss" if self.auxiliary else None,
        }

    def _criterion(self, x_TD: Tensor, x_hat_TD: Tensor, pre_TF: Tensor, f_TF: Tensor, W_dec_FD: Tensor) -> Tensor:
        if self.auxiliary:
            loss = top_k_auxiliary_loss(x_TD, x_hat_TD, pre_TF, f_TF, W_dec_FD)
        else:
            loss = (x_TD - x_hat_TD).square().mean()
        self._loss = loss.detach()
        return loss

    def _share_of_lr(self, step: int) -> float:
        steps = self.problem.steps
        warmup, decay = (self.recipe.warmup or 0) * steps, (self.recipe.decay or 0) * steps
        return min(1.0, (step + 1) / max(1, warmup), (steps - step) / max(1, decay) if decay else 1.0)
