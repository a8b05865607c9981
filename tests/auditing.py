"""A tiny champion on a tiny real model, and new versions of that model with something planted in them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import LlamaForCausalLM

from saeops.adapters.corpora import open_corpus
from saeops.adapters.models import load_model, load_random_model
from saeops.adapters.stores import open_store
from saeops.dictionary.bundle import open_bundle
from saeops.params import CorpusParams, ModelParams, Params, overlay_on, validate_params
from saeops.ports import LanguageModel, ObjectStore
from saeops.refs import Workspace
from saeops.sae.canonical import Sae, SaeMeta
from saeops.sealed import seal
from saeops.stages import audit, promote
from saeops.stages import bundle as bundle_stage
from saeops.stages.audit import Audited, Clients
from saeops.stages.audit_work import Subject
from saeops.stages.walk import Registry, Untold
from tests import bundles
from tests.bundles import author, verdict_on
from tests.tiny import (
    D_MODEL,
    TINY,
    RecordingWatch,
    save_tiny_model,
    tiny_documents,
    tiny_tokenizer,
    write_tiny_corpus,
)

LATENTS, K = 2 * D_MODEL, 6
SITE = "blocks.1.mlp_out"
NAME = "tiny/audited"


def audit_params(corpus: Path, model: Path, **audit_section: Any) -> Params:
    sections = {
        "name": NAME,
        "model": {"ref": str(model), "sha256": None, "device": "cpu"},
        "corpus": {"path": str(corpus)},
        "harvest": {
            "sites": [SITE],
            "splits": {"train": 0.2, "eval": 0.4, "explain": 0.1, "score": 0.25, "panel": 0.05},
        },
        "train": {"site": SITE, "k": K, "expansion_factor": LATENTS / D_MODEL},
        "audit": overlay_on(
            {
                "documents": 48,
                "windows": 3,
                "fidelity_documents": 12,
                "null_documents": 16,
                "effect_latents": 0,
                "resamples": 200,
                "latents": {"min_firings": 12, "min_documents": 8},
            },
            audit_section,
        ),
    }
    return validate_params(overlay_on(TINY, sections), source="audit_params")


def planted_sae(model: LanguageModel) -> Sae:
    """Latent i reads and writes direction ±i of the site: what is done to a direction is done to two latents."""
    eye = torch.eye(D_MODEL)
    W_dec = torch.cat([eye, -eye])
    meta = SaeMeta(
        variant="topk",
        site=SITE,
        d_model=D_MODEL,
        d_sae=LATENTS,
        k=K,
        model=model.identity.to_json(),
    )
    return Sae(W_dec.T.contiguous(), torch.zeros(LATENTS), W_dec, torch.zeros(D_MODEL), None, meta)


@dataclass(frozen=True)
class World:
    """A store with a champion, the corpus and the model it was made from."""

    root: Path
    params: Params
    store: ObjectStore

    @classmethod
    def make(cls, root: Path, **audit_section: Any) -> "World":
        params = audit_params(write_tiny_corpus(root / "corpus"), save_tiny_model(root / "v1"), **audit_section)
        model, space = load_model(params.model, root / "unused"), Workspace(root=root)
        _write_parts(space, params, model)
        bundle_stage.run(params, space, watch=RecordingWatch())
        store = open_store(str(root / "store"))
        bundle = open_bundle(space.bundle)
        registry = Registry(store=store, projection=Untold())
        promote.run(
            bundle.path,
            verdict_on(bundle, None),
            registry=registry,
            author=author("one"),
            reason="",
            force=False,
            git_commit=None,
            dry_run=False,
        )
        return cls(root, params, store)

    @cached_property
    def model(self) -> LanguageModel:
        return load_model(self.params.model, self.root / "unused")

    def version(self, name: str, change: Callable[[LlamaForCausalLM], None]) -> Path:
        """A new version of the model, saved."""
        model = LlamaForCausalLM.from_pretrained(self.root / "v1")
        with torch.no_grad():
            change(model)
        model.save_pretrained(self.root / name)
        tiny_tokenizer().save_pretrained(self.root / name)
        return self.root / name

    def subject(self, model: Path) -> Subject:
        """What an audit of this version is of."""
        new = load_model(ModelParams(ref=str(model), sha256=None, device="cpu"), self.root / "cache")
        bundle = open_bundle(Workspace(root=self.root).bundle)
        return Subject(self.params.audit, 0, bundle, Sae.load(bundle.path / "sae"), self.model, new)

    def clients(self, *, llm: Any = None) -> Clients:
        cache = self.root / "cache"
        return Clients(
            store=self.store,
            cache=cache,
            model=lambda params: load_model(params, cache),
            random_model=lambda params, seed: load_random_model(params, cache, seed=seed),
            corpus=lambda params: open_corpus(CorpusParams.model_validate(params.model_dump())),
            llm=lambda: llm,
        )

    def checkout(self, model: Path) -> Path:
        """Where this version is audited."""
        return self.root / "checkouts" / model.name

    def audit(
        self, model: Path, *, watch: Any = None, minutes: int = 0, seed: int = 0, name: str = NAME
    ) -> Audited:
        params = self.params.model_copy(update={"seed": seed})
        # A checkout a version: what was audited once in this world stands.
        return audit.run(
            name,
            params,
            Workspace(root=self.checkout(model)),
            new=ModelParams(ref=str(model), sha256=None, device="cpu"),
            clients=self.clients(),
            author=author("audit", minutes=minutes),
            watch=watch or RecordingWatch(),
        )


# ── what is planted ─────────────────────────────────────────────────────────


def nothing(model: LlamaForCausalLM) -> None:
    """Weights rounded to bfloat16: as a version that was only stored differently."""
    for weights in model.parameters():
        weights.copy_(weights.bfloat16().float())


def scaled(model: LlamaForCausalLM, by: float = 0.4) -> None:
    """The site's weights scaled: every latent is weakened to this share."""
    model.model.layers[1].mlp.down_proj.weight.mul_(by)


def swapped(model: LlamaForCausalLM, pair: tuple[int, int] = (3, 7)) -> None:
    """Two directions of the site change places: latents i, j and their opposites mean each other."""
    weights, (i, j) = model.model.layers[1].mlp.down_proj.weight, pair
    weights[[i, j]] = weights[[j, i]].clone()


SWAPPED = [3, 7, 3 + D_MODEL, 7 + D_MODEL]


def silenced(model: LlamaForCausalLM, direction: int = 5) -> None:
    """One direction of the site is no longer written: its two latents are lost."""
    model.model.layers[1].mlp.down_proj.weight[direction] = 0.0


SILENCED = [5, 5 + D_MODEL]


def tuned_on_one_topic(model: LlamaForCausalLM, steps: int = 12, lr: float = 3e-3) -> None:
    """A few steps of training on the language topics that speak of numbers."""
    tokenizer = tiny_tokenizer()
    texts = [text for text in tiny_documents().values() if text.lower().count("integer") > 1]
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    with torch.enable_grad():
        for step in range(steps):
            ids = torch.tensor([tokenizer(texts[step % len(texts)])["input_ids"][:128]])
            optimizer.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()


def latents_of(found: Audited) -> pd.DataFrame:
    return pd.read_parquet(found.folder.path / "latents.parquet").set_index("latent")


def _write_parts(space: Workspace, params: Params, model: LanguageModel) -> None:
    """What the bundle stage reads, sealed as the stages before it would, with the planted SAE among it."""
    identity, sae = model.identity.to_json(), planted_sae(model)
    acts = bundles._activations(space, params, 0, identity)
    made: dict[str, Any] = {"activations": acts.digest, "seed": params.seed}
    sae.save(space.sae)
    inputs = made | {"train": params.train.model_dump(mode="json")}
    sealed = seal(space.sae, kind="sae", version=1, inputs=inputs, summary={})
    bundles._controls(space, params, made)
    made["sae"] = sealed.digest
    bundles._diagnostics(space, params, made, ev=0.8)
    catalog = bundles._catalog(space, made, 0)
    labels = bundles._labels(space, made | {"catalog": catalog.digest})
    bundles._effects(space, made | {"labels": labels.digest})
