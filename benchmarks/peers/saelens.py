"""SAELens: its SAETrainer's step (Adam, clipping to 1, AuxK, firing statistics, schedulers).

# T token, D d_model, F latent
"""

import copy
import itertools
import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from sae_lens import SAE, __version__
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.gated_sae import GatedTrainingSAE, GatedTrainingSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.matryoshka_batchtopk_sae import (
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainingSAE
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from benchmarks.contender import LONG_AGO, SILENT, Common, Contender, Reading
from benchmarks.peers.stubs import quiet
from benchmarks.recipe import Problem, Recipe

DEFAULT_LR = 3e-4
NORM_BATCH = 1024


class SaeLens(Contender):
    """SAELens' training SAEs under its own trainer."""

    library = "SAELens"
    version = __version__

    def __init__(self, problem: Problem, recipe: Recipe, sample_TD: Tensor) -> None:
        super().__init__(problem, recipe)
        torch.manual_seed(problem.seed)
        self.sae = _training_sae(problem, recipe)
        lr = recipe.lr or DEFAULT_LR
        self.config = SAETrainerConfig(
            total_training_samples=problem.steps * problem.batch,
            train_batch_size_samples=problem.batch,
            lr=lr,
            # The runner's default where none is given.
            lr_end=lr / 10,
            lr_warm_up_steps=round((recipe.warmup or 0) * problem.steps),
            lr_decay_steps=round((recipe.decay or 0) * problem.steps),
            device="cpu",
        )
        self.trainer = SAETrainer(cfg=self.config, sae=self.sae, data_provider=iter(()))
        if recipe.normalise:
            batches = sample_TD.split(NORM_BATCH)
            with quiet():
                self.trainer.activation_scaler.estimate_scaling_factor(
                    problem.d_model, itertools.cycle(batches), len(batches)
                )
        self._inference: SAE[Any] | None = None

    def step(self, x_TD: Tensor) -> float:
        self._inference = None
        self.trainer.maybe_reset_sparsity()
        output = self.trainer.step(x_TD)
        self.trainer.n_training_steps += 1
        return float(output.loss.detach())

    @torch.no_grad()
    def read(self, x_TD: Tensor, *, training: bool) -> Reading:
        if not training:
            sae = self._for_inference()
            f_TF = sae.encode(x_TD)
            return Reading(sae.decode(f_TF), f_TF > 0)
        scaler = self.trainer.activation_scaler
        f_TF, _ = self.sae.encode_with_hidden_pre(scaler.scale(x_TD))
        return Reading(scaler.unscale(self.sae.decode(f_TF)), f_TF > 0)

    @torch.no_grad()
    def put(self, weights: Common) -> None:
        scale = self.trainer.activation_scaler.scaling_factor or 1.0
        sae = self.sae
        sae.W_enc.copy_(weights.W_enc_DF)
        sae.W_dec.copy_(weights.W_dec_FD)
        sae.b_dec.zero_()
        bias, threshold = weights.b_enc * scale, weights.threshold * scale
        match self.problem.variant:
            case "gated":
                sae.b_gate.copy_(bias - threshold)
                sae.b_mag.copy_(bias)
                sae.r_mag.zero_()
            case "relu_l1":
                sae.b_enc.copy_(bias - threshold)
            case "jumprelu":
                sae.b_enc.copy_(bias)
                sae.threshold.fill_(threshold)
            case _:
                sae.b_enc.copy_(bias)
        self._inference = None

    @torch.no_grad()
    def silence(self, latents: Tensor) -> None:
        (self.sae.b_gate if self.problem.variant == "gated" else self.sae.b_enc)[latents] = SILENT
        self.trainer.n_forward_passes_since_fired[latents] = LONG_AGO

    def decoder(self) -> Tensor:
        return self.sae.W_dec.detach()

    def settings(self) -> Mapping[str, Any]:
        config = self.sae.cfg.to_dict()
        shown = (
            "l1_coefficient",
            "l0_coefficient",
            "aux_loss_coefficient",
            "decoder_init_norm",
            "matryoshka_widths",
        )
        return {
            "optimiser": "torch.optim.Adam",
            "lr": self.config.lr,
            "warm-up steps": self.config.lr_warm_up_steps,
            "decay steps": self.config.lr_decay_steps,
            "gradient clip": 1.0,
            "scaling factor": self.trainer.activation_scaler.scaling_factor,
            **{name: config[name] for name in shown if name in config},
        }

    def _for_inference(self) -> SAE[Any]:
        """As a user would save and load it: a batch top-k becomes a JumpReLU, the scale is folded in."""
        if self._inference is None:
            sae = copy.deepcopy(self.sae)
            if self.trainer.activation_scaler.scaling_factor is not None:
                sae.fold_activation_norm_scaling_factor(self.trainer.activation_scaler.scaling_factor)
            with tempfile.TemporaryDirectory() as folder, quiet():
                sae.save_inference_model(folder)
                self._inference = SAE.load_from_disk(folder)
        return self._inference


def _training_sae(problem: Problem, recipe: Recipe) -> TrainingSAE[Any]:
    shape = {"d_in": problem.d_model, "d_sae": problem.d_sae}
    if recipe.normalise:
        shape["normalize_activations"] = "expected_average_only_in"
    penalty = {} if recipe.coefficient is None else {"l1_coefficient": recipe.coefficient}
    match problem.variant:
        case "topk":
            return TopKTrainingSAE(TopKTrainingSAEConfig(**shape, k=problem.k))
        case "batch_topk":
            return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**shape, k=problem.k))
        case "matryoshka":
            widths = problem.prefixes
            config = MatryoshkaBatchTopKTrainingSAEConfig(**shape, k=problem.k, matryoshka_widths=widths)
            return MatryoshkaBatchTopKTrainingSAE(config)
        case "jumprelu":
            penalty = {} if recipe.coefficient is None else {"l0_coefficient": recipe.coefficient}
            return JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**shape, **penalty))
        case "relu_l1":
            return StandardTrainingSAE(StandardTrainingSAEConfig(**shape, **penalty))
        case "gated":
            return GatedTrainingSAE(GatedTrainingSAEConfig(**shape, **penalty))
