"""Our figures beside SAELens', its definitions written out here; benchmarks/oracle.py runs the library itself."""

import pytest
import torch
from torch import Tensor

from benchmarks.oracle import BATCH, Row, compared, counts, our_sums, table
from saeops.adapters.model_source import resolve_model
from saeops.adapters.models import TransformersModel
from saeops.params import ModelParams
from saeops.sae.canonical import Sae, SaeMeta
from tests.tiny import D_MODEL, save_tiny_model, tiny_documents

SITE = "blocks.1.resid_post"
IGNORED = [0, 1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TransformersModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("model"))
    return TransformersModel(resolve_model(ModelParams(ref=str(folder), sha256=None), folder, lambda _: None))


@pytest.fixture(scope="module")
def sae() -> Sae:
    generator = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(128, D_MODEL, generator=generator), dim=1)
    b_dec = 0.1 * torch.randn(D_MODEL, generator=generator)
    meta = SaeMeta(variant="topk", site=SITE, d_model=D_MODEL, d_sae=128, k=8)
    return Sae(W_dec.T.contiguous() / 2, torch.zeros(128), W_dec, b_dec, None, meta)


@pytest.fixture(scope="module")
def batches(model: TransformersModel) -> list[Tensor]:
    rows = [torch.tensor([[0, *model.encode(text)[:23]]]) for text in list(tiny_documents().values())[: 2 * BATCH]]
    return [torch.cat(rows[:BATCH]), torch.cat(rows[BATCH:])]


def written_out(model: TransformersModel, sae: Sae, batches: list[Tensor]) -> dict[str, float]:
    """SAELens 6.54's evaluation, evals.py, each definition in a line or two."""
    parts: dict[str, list[Tensor]] = {}
    for ids in batches:
        mask = counts(ids, IGNORED)
        x = model.capture(ids, [SITE])[SITE]
        x_hat = sae.reconstruct(x.flatten(0, 1)).view_as(x)
        spliced = torch.where(mask[..., None], x_hat, x)
        edits = {
            "without_sae": {},
            "with_sae": {SITE: lambda _, y=spliced: y},
            "with_ablation": {SITE: torch.zeros_like},
        }
        logprobs = {name: model.logits(ids, edit).log_softmax(-1) for name, edit in edits.items()}
        clean = logprobs["without_sae"]
        for name, logprob in logprobs.items():
            loss = -logprob[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
            parts.setdefault(f"ce_loss_{name}", []).append(loss[mask[:, :-1]])
            parts.setdefault(f"kl_div_{name}", []).append((clean.exp() * (clean - logprob)).sum(-1)[mask])
        x, x_hat = x[mask], x_hat[mask]
        error = (x - x_hat).square().sum(1)
        parts.setdefault("x", []).append(x)
        parts.setdefault("mse", []).append(error)
        parts.setdefault("explained_variance_legacy", []).append(1 - error / (x - x.mean(0)).square().sum(1))
        parts.setdefault("cossim", []).append(torch.cosine_similarity(x, x_hat))
        bias = x_hat.square().sum(1).mean() / (x * x_hat).sum(1).mean()
        parts.setdefault("relative_reconstruction_bias", []).append(bias[None])
        parts.setdefault("l2_norm_in", []).append(x.norm(dim=1))
        parts.setdefault("l2_norm_out", []).append(x_hat.norm(dim=1))
        parts.setdefault("l2_ratio", []).append(x_hat.norm(dim=1) / x.norm(dim=1))
        parts.setdefault("l0", []).append((sae.encode(x).dense() != 0).sum(1).float())
    x = torch.cat(parts.pop("x")).double()
    found = {name: float(torch.cat(values).double().mean()) for name, values in parts.items()}
    found["explained_variance"] = 1 - found["mse"] / float(x.square().sum(1).mean() - x.mean(0).square().sum())
    zero, sae_, clean_ = (found[f"ce_loss_{name}"] for name in ("with_ablation", "with_sae", "without_sae"))
    found["ce_loss_score"] = (zero - sae_) / (zero - clean_)
    found["kl_div_score"] = 1 - found["kl_div_with_sae"] / found["kl_div_with_ablation"]
    return found


@pytest.fixture(scope="module")
def rows(model: TransformersModel, sae: Sae, batches: list[Tensor]) -> dict[str, Row]:
    sums = our_sums(model, sae, batches, IGNORED)
    return {row.theirs: row for row in compared(written_out(model, sae, batches), sums)}


def test_nothing_but_the_definition_differs(rows: dict[str, Row]) -> None:
    assert {name: row.left for name, row in rows.items() if not row.same} == {}


def test_where_definitions_are_one_the_figures_are(rows: dict[str, Row]) -> None:
    one = {name for name, row in rows.items() if not row.differs}
    assert one >= {"explained_variance", "cossim", "l0", "ce_loss_without_sae", "ce_loss_with_sae"}
    for name in one:
        assert rows[name].value_ours == pytest.approx(rows[name].value_theirs, abs=1e-4), name


def test_where_definitions_differ_the_figures_do(rows: dict[str, Row]) -> None:
    for name, row in rows.items():
        if row.differs and row.ours:
            assert abs(row.value_ours - row.value_theirs) > 1e-5, name


def test_what_does_not_agree_is_marked(rows: dict[str, Row]) -> None:
    row = rows["l0"]
    wrong = Row(row.theirs, row.ours, row.value_theirs + 0.01, row.value_ours, row.restated, "")
    assert "MISMATCH" in table([wrong])
    assert "MISMATCH" not in table(list(rows.values()))
