"""Do SAEs compute the same here and in the libraries they come from and go to?

Builds random SAEs with each real library, saves them with the library, imports them here, and compares latents and
reconstructions on random inputs; then exports from here and lets the library load it.

    python -m benchmarks.parity [--json FILE] [--environment FOLDER]

Runs in the peers' environment, as benchmarks/training.py does (made on the first run), with this checkout on the
path. Prints a table, and ends with 1 where anything differs by more than fp32 rounding.

# T token, D d_model, F latent
"""

import argparse
import contextlib
import importlib.metadata
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import environment
from benchmarks.peers.stubs import stub
from saeops.sae.canonical import Sae, SaeMeta
from saeops.sae.formats import dictionary_learning, saelens, sparsify
from saeops.sae.formats.folding import Imported

D, F, K, T = 48, 256, 8, 512
SITE = "blocks.10.resid_post"
TOLERANCE = 1e-4
"""Largest difference relative to the largest value; fp32 sums in another order differ by some 1e-6."""
NOT_NEEDED = ("nnsight", "zstandard")
"""What dictionary_learning imports for running language models, which no dictionary needs."""
PACKAGES = ("sae-lens", "eai-sparsify", "dictionary-learning", "torch")


@dataclass(frozen=True)
class Both:
    """What the library and saeops make of the same inputs, in the same units."""

    theirs_TF: Tensor
    ours_TF: Tensor
    theirs_TD: Tensor
    ours_TD: Tensor


@dataclass(frozen=True)
class Row:
    """One comparison."""

    library: str
    way: str
    """import or export."""
    case: str
    l0: float
    """Latents that fire on a token, in the library."""
    fires_differently: int
    """Pairs of token and latent where only one of the two fires, of T × F."""
    latents: float
    """Largest difference, relative to the largest latent."""
    reconstruction: float

    @property
    def same(self) -> bool:
        return self.fires_differently == 0 and max(self.latents, self.reconstruction) <= TOLERANCE


def compare(library: str, way: str, case: str, both: Both) -> Row:
    return Row(
        library,
        way,
        case,
        l0=float((both.theirs_TF > 0).sum(1).double().mean()),
        fires_differently=int(((both.theirs_TF > 0) != (both.ours_TF > 0)).sum()),
        latents=_difference(both.theirs_TF, both.ours_TF),
        reconstruction=_difference(both.theirs_TD, both.ours_TD),
    )


def _difference(theirs: Tensor, ours: Tensor) -> float:
    return float((theirs - ours).abs().max() / theirs.abs().max())


def inputs() -> Tensor:
    """Tokens with a mean, as activations have one."""
    return torch.randn(T, D, generator=_generator(0)) + 3 * torch.randn(D, generator=_generator(1))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def randomise(module: torch.nn.Module, *, unit_rows: bool, seed: int = 2) -> None:
    """Random weights of the size that trained ones have; decoder rows of length 1, or of 0.3 to 3."""
    generator = _generator(seed)
    for name, tensor in module.named_parameters():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * _size(name, tensor))
    rows = decoder_rows(module)
    length = torch.ones(F, 1) if unit_rows else torch.linspace(0.3, 3, F)[:, None]
    rows.copy_(torch.nn.functional.normalize(rows, dim=1) * length)


def _size(name: str, tensor: Tensor) -> float:
    if tensor.dim() == 2:
        return D**-0.5
    return 0.3 if name == "r_mag" else 0.5


def decoder_rows(module: torch.nn.Module) -> Tensor:
    """A view of the decoder's matrix, [F, D]."""
    W_dec = getattr(module, "W_dec", None)
    return W_dec.data if W_dec is not None else module.decoder.weight.data.t()


def ours(imported: Imported, x_TD: Tensor) -> tuple[Tensor, Tensor]:
    target = "blocks.11.resid_post" if imported.transcoder else None
    sae = imported.canonical(format="parity", site=SITE, target_site=target)
    return sae.encode(x_TD).dense(), sae.reconstruct(x_TD)


# ── SAELens ─────────────────────────────────────────────────────────────────


def saelens_cases(folder: Path) -> Iterator[Row]:
    import sae_lens as lens

    x_TD = inputs()
    classes: list[tuple[str, Any, Any, dict[str, Any]]] = [
        ("standard", lens.StandardSAE, lens.StandardSAEConfig, {}),
        ("jumprelu", lens.JumpReLUSAE, lens.JumpReLUSAEConfig, {}),
        ("gated", lens.GatedSAE, lens.GatedSAEConfig, {}),
        ("topk, unit rows", lens.TopKSAE, lens.TopKSAEConfig, {"k": K}),
        ("topk by act · norm", lens.TopKSAE, lens.TopKSAEConfig, {"k": K, "rescale_acts_by_decoder_norm": True}),
    ]
    for name, sae_class, config_class, extra in classes:
        for apply_b_dec in (True, False):
            sae = sae_class(config_class(d_in=D, d_sae=F, apply_b_dec_to_input=apply_b_dec, **extra))
            sae.cfg.metadata.hook_name = "blocks.10.hook_resid_post"
            randomise(sae, unit_rows="unit" in name)
            if hasattr(sae, "threshold"):
                sae.threshold.data.abs_()
            sae.save_model(folder)
            case = f"{name}, b_dec {'on' if apply_b_dec else 'off'} input"
            yield compare("SAELens", "import", case, _saelens_both(lens.SAE.load_from_disk(folder), folder, x_TD))
    yield from _saelens_trained(folder, x_TD)


def _saelens_trained(folder: Path, x_TD: Tensor) -> Iterator[Row]:
    """What training leaves: BatchTopK saved for inference, and scales that are folded in or lie beside."""
    import sae_lens as lens

    for rescale in (True, False):
        config = lens.BatchTopKTrainingSAEConfig(d_in=D, d_sae=F, k=K, rescale_acts_by_decoder_norm=rescale)
        sae = lens.BatchTopKTrainingSAE(config)
        randomise(sae, unit_rows=False)
        sae.topk_threshold.fill_(1.3)
        sae.save_inference_model(folder)
        case = f"batchtopk saved for inference{', by act · norm' if rescale else ''}"
        yield compare("SAELens", "import", case, _saelens_both(lens.SAE.load_from_disk(folder), folder, x_TD))
    for folded in (True, False):
        config = lens.TopKSAEConfig(d_in=D, d_sae=F, k=K, rescale_acts_by_decoder_norm=True)
        sae = lens.TopKSAE(config)
        randomise(sae, unit_rows=False)
        scale = 1.0
        if folded:
            sae.fold_activation_norm_scaling_factor(0.21)
        else:
            sae.cfg.normalize_activations, scale = "expected_average_only_in", 0.21
            (folder / saelens.SCALER).write_text(json.dumps({"scaling_factor": scale, "has_whitening": False}))
        sae.save_model(folder)
        case = f"topk, activation scale {'folded by SAELens' if folded else 'in activation_scaler.json'}"
        both = _saelens_both(lens.SAE.load_from_disk(folder), folder, x_TD, scale=scale)
        yield compare("SAELens", "import", case, both)
    (folder / saelens.SCALER).unlink()


@torch.no_grad()
def _saelens_both(sae: Any, folder: Path, x_TD: Tensor, *, scale: float = 1.0) -> Both:
    theirs_TF = sae.encode(scale * x_TD)
    theirs_TD = sae.decode(theirs_TF) / scale
    if not getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        theirs_TF = theirs_TF * sae.W_dec.norm(dim=1)
    ours_TF, ours_TD = ours(saelens.read(folder), x_TD)
    return Both(theirs_TF / scale, ours_TF, theirs_TD, ours_TD)


# ── sparsify ────────────────────────────────────────────────────────────────


@torch.no_grad()
def sparsify_cases(folder: Path) -> Iterator[Row]:
    from sparsify import SparseCoder, SparseCoderConfig

    x_TD = inputs()
    for transcode, length in ((False, 1.0), (False, 2.5), (True, 1.0)):
        coder = SparseCoder(D, SparseCoderConfig(num_latents=F, k=K, transcode=transcode))
        randomise(coder, unit_rows=True)
        coder.W_dec.data *= length
        coder.save_to_disk(folder / "layers.10")
        loaded = SparseCoder.load_from_disk(folder / "layers.10")
        theirs_TF, theirs_TD = _sparsify_forward(loaded, x_TD)
        ours_TF, ours_TD = ours(sparsify.read(folder / "layers.10"), x_TD)
        case = f"{'transcoder' if transcode else 'topk'}, rows {length} long"
        yield compare("sparsify", "import", case, Both(theirs_TF * length, ours_TF, theirs_TD, ours_TD))


def _sparsify_forward(coder: Any, x_TD: Tensor) -> tuple[Tensor, Tensor]:
    encoded = coder.encode(x_TD)
    dense_TF = torch.zeros(len(x_TD), F).scatter(1, encoded.top_indices, encoded.top_acts)
    return dense_TF, coder(x_TD).sae_out


# ── dictionary_learning ─────────────────────────────────────────────────────


@torch.no_grad()
def dictionary_learning_cases(folder: Path) -> Iterator[Row]:
    stub(*NOT_NEEDED)
    from dictionary_learning import dictionary, utils
    from dictionary_learning.trainers import batch_top_k, matryoshka_batch_top_k, top_k

    x_TD = inputs()
    modules: list[tuple[torch.nn.Module, bool]] = [
        (dictionary.AutoEncoder(D, F), False),
        (dictionary.AutoEncoderNew(D, F), False),
        (dictionary.GatedAutoEncoder(D, F), False),
        (dictionary.JumpReluAutoEncoder(D, F), False),
        (top_k.AutoEncoderTopK(D, F, K), True),
        (batch_top_k.BatchTopKSAE(D, F, K), False),
        (matryoshka_batch_top_k.MatryoshkaBatchTopKSAE(D, F, K, [64, 64, 128]), False),
    ]
    for module, unit_rows in modules:
        name = type(module).__name__
        randomise(module, unit_rows=unit_rows)
        threshold = dict(module.named_buffers()).get("threshold")
        if threshold is not None:
            threshold.fill_(1.1)
        trainer = {"dict_class": name, "activation_dim": D, "dict_size": F, "k": K, "submodule_name": None}
        torch.save(module.state_dict(), folder / dictionary_learning.WEIGHTS)
        (folder / dictionary_learning.CONFIG).write_text(json.dumps({"trainer": trainer, "buffer": {}}))
        loaded, _ = utils.load_dictionary(str(folder), "cpu")
        theirs_TF = loaded.encode(x_TD)
        theirs_TD = loaded.decode(theirs_TF)
        ours_TF, ours_TD = ours(dictionary_learning.read(folder), x_TD)
        theirs_TF = theirs_TF * decoder_rows(loaded).norm(dim=1)
        yield compare("dictionary_learning", "import", name, Both(theirs_TF, ours_TF, theirs_TD, ours_TD))


# ── exports ─────────────────────────────────────────────────────────────────


def canonical(kind: str, *, apply_b_dec: bool) -> Sae:
    """A random canonical SAE: topk, jumprelu or relu."""
    generator = _generator(3)
    rows = torch.nn.functional.normalize(torch.randn(F, D, generator=generator), dim=1)
    tensors = {
        "W_enc": torch.randn(D, F, generator=generator) * D**-0.5,
        "b_enc": torch.randn(F, generator=generator) * 0.5,
        "W_dec": rows,
        "b_dec": torch.randn(D, generator=generator),
    }
    if kind == "jumprelu":
        tensors["threshold"] = torch.rand(F, generator=generator) + 0.5
    k = K if kind == "topk" else None
    meta = SaeMeta(variant=kind, site=SITE, d_model=D, d_sae=F, k=k, apply_b_dec_to_input=apply_b_dec)
    return Sae.of(tensors, meta)


def written(files: dict[str, bytes], folder: Path) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@torch.no_grad()
def export_cases(folder: Path) -> Iterator[Row]:
    import sae_lens as lens
    from sparsify import SparseCoder

    stub(*NOT_NEEDED)
    from dictionary_learning.utils import load_dictionary

    def through_saelens(sae: Sae, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        loaded = lens.SAE.load_from_disk(written(saelens.files_of(sae), folder / "saelens"))
        return loaded.encode(x_TD), loaded(x_TD)

    def through_sparsify(sae: Sae, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        files = sparsify.files_of(sae)
        return _sparsify_forward(SparseCoder.load_from_disk(written(files, folder) / "layers.10"), x_TD)

    def through_dictionary_learning(sae: Sae, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        files = dictionary_learning.files_of(sae)
        loaded, _ = load_dictionary(str(written(files, folder / "dictionary_learning")), "cpu")
        return loaded.encode(x_TD), loaded(x_TD)

    ways: list[tuple[str, Callable[[Sae, Tensor], tuple[Tensor, Tensor]]]] = [
        ("SAELens", through_saelens),
        ("sparsify", through_sparsify),
        ("dictionary_learning", through_dictionary_learning),
    ]
    x_TD = inputs()
    for library, through in ways:
        for kind in ("topk",) if library == "sparsify" else ("topk", "jumprelu", "relu"):
            for apply_b_dec in (True, False):
                sae = canonical(kind, apply_b_dec=apply_b_dec)
                theirs_TF, theirs_TD = through(sae, x_TD)
                both = Both(theirs_TF, sae.encode(x_TD).dense(), theirs_TD, sae.reconstruct(x_TD))
                case = f"{kind}, b_dec {'on' if apply_b_dec else 'off'} input"
                yield compare(library, "export", case, both)


# ── the table ───────────────────────────────────────────────────────────────


def table(rows: list[Row]) -> str:
    lines = [
        "| library | way | case | L0 | fire differently | latents differ | reconstructions differ |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.library} | {row.way} | {row.case} | {row.l0:.1f} | {row.fires_differently} | {row.latents:.1e} "
        f"| {row.reconstruction:.1e} |{'' if row.same else '  ← MISMATCH'}"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as JSON too")
    parser.add_argument("--environment", type=Path, default=environment.DEFAULT, help="where the libraries are")
    arguments = parser.parse_args()
    if not environment.inside(arguments.environment):
        environment.enter(arguments.environment.absolute(), "benchmarks.parity", sys.argv[1:])
    file: Path | None = arguments.json
    warnings.filterwarnings("ignore")
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    sys.stdout.write(", ".join(f"{name} {version}" for name, version in versions.items()))
    sys.stdout.write(f"; D = {D}, F = {F}, k = {K}, {T} random tokens\n\n")
    rows: list[Row] = []
    for cases in (saelens_cases, sparsify_cases, dictionary_learning_cases, export_cases):
        # The libraries print as they load; the table is all that belongs on stdout.
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
            rows += cases(Path(folder))
    sys.stdout.write(table(rows) + "\n")
    if file is not None:
        found = [{**asdict(row), "same": row.same} for row in rows]
        file.write_text(json.dumps({"versions": versions, "rows": found}, indent=1) + "\n")
    return 0 if all(row.same for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
