"""Small real things for tests: models of four families, a tokenizer, a corpus, params."""

import contextlib
import pydoc_data.topics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

from saeops.params import Params, overlay_on, validate_params

Family = Literal["llama", "gpt2", "neox", "gemma"]
FAMILIES: tuple[Family, ...] = ("llama", "gpt2", "neox", "gemma")
D_MODEL = 32
LAYERS = 3
VOCABULARY = 320


def tiny_documents() -> dict[str, str]:
    """Name → English text: Python's own language topics, each cut to 1,200 characters."""
    topics = pydoc_data.topics.topics
    return {name: text[:1200] for name, text in sorted(topics.items()) if len(text) > 300}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with bos and eos, trained on the tiny documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(tiny_documents().values(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")


def tiny_model(family: Family = "llama", *, seed: int = 0, layers: int = LAYERS) -> PreTrainedModel:
    """A random-init model of one family: d_model 32, with weights large enough that layers matter."""
    shared: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    usual = shared | {
        "hidden_size": D_MODEL,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match family:
            case "llama":
                model = LlamaForCausalLM(LlamaConfig(**usual, num_key_value_heads=2))
            case "gpt2":
                sizes = {"n_embd": D_MODEL, "n_layer": layers, "n_head": 4, "n_positions": 512}
                model = GPT2LMHeadModel(GPT2Config(**shared, **sizes, initializer_range=0.2))
            case "neox":
                model = GPTNeoXForCausalLM(GPTNeoXConfig(**usual))
            case "gemma":
                model = Gemma2ForCausalLM(Gemma2Config(**usual, num_key_value_heads=2, head_dim=8))
    return model.eval()


def save_tiny_model(folder: Path, family: Family = "llama", *, seed: int = 0, layers: int = LAYERS) -> Path:
    """Save a tiny model and its tokenizer as a local model folder."""
    disable_progress_bar()
    tiny_model(family, seed=seed, layers=layers).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_tiny_corpus(folder: Path) -> Path:
    """The tiny documents as a folder of text files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in tiny_documents().items():
        (folder / f"{name}.txt").write_text(text)
    return folder


TINY: dict[str, Any] = {
    "name": "tiny/blocks.1.resid_post",
    "corpus": {"source": "folder", "min_chars": 200, "max_chars": 400},
    "harvest": {
        "sites": ["blocks.1.resid_post"],
        "tokens": 16_000,
        "context_size": 32,
        "batch_windows": 8,
        "shard_tokens": 1024,
        "splits": {"train": 0.3, "eval": 0.2, "explain": 0.2, "score": 0.2, "panel": 0.1},
    },
    "train": {
        "site": "blocks.1.resid_post",
        "variant": "topk",
        "k": 4,
        "expansion_factor": 4,
        "tokens": 16_000,
        "batch_size": 256,
        "buffer_tokens": 2048,
        "dead_after_tokens": 4_000,
        "checkpoint_every_steps": 20,
        "log_every_steps": 10,
    },
    "controls": {"random_model_tokens": 6_000, "seeds": 1, "train_tokens": 4_000},
    "diagnose": {"fidelity_documents": 10, "resamples": 100, "top_contexts": 5, "context_tokens": 8},
    "label": {"latents": 12, "llm_latents": 2, "positives": 10, "negatives": 10, "hard_negatives": 5},
    "bench": {"latents": 2, "random_directions": 2, "neutral_documents": 2, "resamples": 100},
    "review": {"by_priority": 3, "at_random": 2},
}


def tiny_params(**sections: Any) -> Params:
    """Params for the tiny model and corpus; sections given are laid over, e.g. `train={"k": 2}`."""
    return validate_params(overlay_on(TINY, sections), source="tiny_params")


@dataclass
class RecordingWatch:
    """A watch that shows nothing and remembers what it was told."""

    said: list[str] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)
    advanced: float = 0

    @contextlib.contextmanager
    def bar(self, title: str, total: float, unit: str) -> Iterator["RecordingWatch"]:
        yield self

    def advance(self, amount: float = 1, **facts: str) -> None:
        self.advanced += amount

    def say(self, text: str) -> None:
        self.said.append(text)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.measured.update(values)

    def figure(self, name: str, figure: Any) -> None: ...

    def file(self, path: Path) -> None: ...
