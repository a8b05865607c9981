"""Language models through transformers: read and edited at named sites by forward hooks.

Shape letters: B window, W position in a window, D width of a site, V vocabulary, F direction.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.utils import logging as transformers_logging

from saeops.activations.sites import Place, Structure, find_structure, hidden_of, resolve, with_hidden
from saeops.adapters.model_source import ModelFolder, resolve_model
from saeops.adapters.prefix import Enough, Prefix
from saeops.errors import ModelUnavailable
from saeops.params import ModelParams
from saeops.ports import Edit, ModelIdentity
from saeops.refs import parse_site

ANSWER_BATCH = 16
"""Prompts of about one length that are answered in one forward pass."""


def load_model(
    params: ModelParams, cache: Path, say: Callable[[str], None] = lambda _: None
) -> "TransformersModel":
    """The model that `params.ref` names, ready to be read.

    Args:
        say: told before something takes long.

    Raises:
        ModelUnavailable: it cannot be found, fetched, checked or loaded.
        ToolMissing: converting it needs a package that is not installed.
        SiteUnknown: its structure is not one that can be read.
    """
    return TransformersModel(resolve_model(params, cache, say), device=params.device, dtype=params.dtype)


def load_random_model(
    params: ModelParams, cache: Path, say: Callable[[str], None] = lambda _: None, *, seed: int
) -> "TransformersModel":
    """A copy of the model that `params.ref` names with the same tokenizer and weights that were never trained.

    Weights are drawn as the architecture's own initialisation draws them, on the CPU, so that
    one seed gives the same weights on every device. The control of Heap et al. 2025, arXiv 2501.17727.

    Raises:
        ModelUnavailable, ToolMissing, SiteUnknown: as `load_model`.
    """
    folder = resolve_model(params, cache, say)
    return TransformersModel(folder, device=params.device, dtype=params.dtype, random_init=seed)


class TransformersModel:
    """A causal language model of transformers behind the port LanguageModel.

    Args:
        random_init: seed of random weights in the place of the trained ones.
    """

    def __init__(
        self,
        folder: ModelFolder,
        *,
        device: str = "auto",
        dtype: str = "float32",
        random_init: int | None = None,
    ) -> None:
        self.device = _device(device)
        transformers_logging.disable_progress_bar()
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
            self._model: Any = _weights(folder.path, getattr(torch, dtype), random_init)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelUnavailable(
                f"transformers cannot load {folder.ref}: {error}",
                hint="model.ref must name a causal language model with config, tokenizer and safetensors weights",
            ) from error
        self._model.eval().requires_grad_(False).to(self.device)
        self._structure: Structure = find_structure(self._model)
        self._widths: dict[str, int] = {}
        self._texts: dict[int, str] = {}
        self._begins_at: dict[int, bool] = {}
        self.bos_id: int | None = bos_id(self._tokenizer)
        self.special_ids: frozenset[int] = special_ids(self._tokenizer)
        unembedding = self._model.get_output_embeddings().weight
        identity = ModelIdentity(
            ref=folder.ref,
            digest=folder.digest,
            architecture=type(self._model).__name__,
            n_layers=len(self._structure.blocks),
            d_model=int(unembedding.shape[1]),
            vocabulary=int(unembedding.shape[0]),
        )
        self.identity = identity if random_init is None else identity.randomly_initialised(random_init)

    def width(self, site: str) -> int:
        """Width of a site's activations, seen in a pass over one token.

        Raises:
            SiteUnknown: the model has no such site; what there is is listed.
        """
        if site not in self._widths:
            self._widths[site] = self.capture(torch.zeros(1, 1, dtype=torch.long), [site])[site].shape[-1]
        return self._widths[site]

    def encode(self, text: str) -> list[int]:
        """Token ids without specials."""
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Each id as the text it stands for (spaces and newlines as they are)."""
        return [self._text(int(index)) for index in ids]

    def _text(self, index: int) -> str:
        if index not in self._texts:
            # Alone or at the start, some tokenizers drop a token's leading space: decode it behind another.
            anchor = self.encode("a")
            front, whole = self._decode(anchor), self._decode([*anchor, index])
            self._texts[index] = whole[len(front) :]
        return self._texts[index]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    @torch.no_grad()
    def capture(self, ids: Int[Tensor, "B W"], sites: Sequence[str]) -> dict[str, Float[Tensor, "B W D"]]:
        """Activations at the sites, fp32 on the model's device; the pass stops after the last one.

        Raises:
            SiteUnknown: the model has no such site; what there is is listed.
        """
        places = {site: resolve(self._structure, site) for site in sites}
        seen: dict[str, Tensor] = {}

        def keep(site: str) -> Edit:
            def look(hidden: Tensor) -> Tensor:
                # A copy: later modules may write into this memory.
                seen[site] = hidden.float().clone()
                if len(seen) == len(places):
                    raise Enough
                return hidden

            return look

        edits = [(places[site], keep(site)) for site in sites]
        with self._hooked(edits), contextlib.suppress(Enough):
            self._model.base_model(ids.to(self.device), use_cache=False)
        return seen

    @torch.no_grad()
    def logits(
        self,
        ids: Int[Tensor, "B W"],
        edits: Mapping[str, Edit] | None = None,
        *,
        at: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B W V"]:
        """Logits, fp32, with each site's activations (fp32) replaced by what its edit returns.

        Args:
            at: one position a window: only its logits are computed, and W is 1.

        Raises:
            SiteUnknown: the model has no such site; what there is is listed.
        """
        places = [(resolve(self._structure, site), edit) for site, edit in (edits or {}).items()]
        with self._hooked(places), self._unembedding_only(at):
            return self._model(ids.to(self.device), use_cache=False).logits.float()

    def from_site(self, ids: Int[Tensor, "B W"], sites: Sequence[str]) -> "Resumed":
        """Forward passes over the same windows that begin at the first site's block.

        Raises:
            SiteUnknown: the model has no such site; what there is is listed.
        """
        for site in sites:
            resolve(self._structure, site)
        return Resumed(self, ids, min(parse_site(site)[0] for site in sites))

    @torch.no_grad()
    def _prefix(self, ids: Int[Tensor, "B W"], block: int) -> Prefix | None:
        """What enters the block; None where its input is not all that it reads of the blocks before."""
        if block not in self._begins_at:
            probe = torch.arange(4)[None] % self.identity.vocabulary
            whole, entering = self.logits(probe), self._entering(probe, block)
            # Whatever blocks hand on by other ways is that of another text now.
            self.logits(probe.flip(1))
            with entering.in_place():
                self._begins_at[block] = torch.equal(self.logits(probe), whole)
        return self._entering(ids, block) if self._begins_at[block] else None

    def _entering(self, ids: Int[Tensor, "B W"], block: int) -> Prefix:
        return Prefix.of(
            self._structure, block, lambda: self._model.base_model(ids.to(self.device), use_cache=False)
        )

    @contextlib.contextmanager
    def _unembedding_only(self, at: Int[Tensor, " B"] | None) -> Iterator[None]:
        if at is None:
            yield
            return
        rows = torch.arange(len(at), device=self.device)
        columns = at.to(self.device)
        handle = self._model.get_output_embeddings().register_forward_pre_hook(
            lambda _module, args: (args[0][rows, columns][:, None],)
        )
        try:
            yield
        finally:
            handle.remove()

    @contextlib.contextmanager
    def _hooked(self, edits: Sequence[tuple[Place, Edit]]) -> Iterator[None]:
        handles = [_hook(place, edit) for place, edit in edits]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def unembed(self, directions: Float[Tensor, "F D"]) -> Float[Tensor, "F V"]:
        """Direct effect of residual-stream directions on the logits, through the final norm's gain."""
        gained_FD = directions.float().to(self.device) * self._final_gain()
        return gained_FD @ self._model.get_output_embeddings().weight.float().T

    def _final_gain(self) -> Float[Tensor, " D"]:
        """The final norm's gain, measured: some norms multiply by their weight, others by one more."""
        norm = self._structure.final_norm
        probe_D = torch.ones(self.identity.d_model, device=self.device)
        probe_D[::2] = -1
        probe_D = probe_D.to(next(norm.parameters()).dtype)
        # On ±1 the norm itself does nothing, and a bias cancels in the difference.
        return ((norm(probe_D) - norm(-probe_D)) / 2 * probe_D).float()

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[str], *, max_new_tokens: int, system: str = "", prefix: str = ""
    ) -> list[str]:
        """The greedy answer to each chat prompt (plain continuation where there is no chat template).

        The prompts run as one batch, padded on the left; `prefix` begins each answer and is not repeated.
        """
        rows = [self._prompt_ids(prompt, system) + self.encode(prefix) for prompt in prompts]
        width = max(map(len, rows), default=0)
        pad = _first(self._tokenizer.pad_token_id, self._tokenizer.eos_token_id, 0) or 0
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=self.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self.device)
        answers = self._model.generate(
            ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=pad
        )
        texts = self._tokenizer.batch_decode(answers[:, width:], skip_special_tokens=True)
        return [str(text).strip() for text in texts]

    @torch.no_grad()
    def answer_logits(
        self, prompts: Sequence[str], choices: Sequence[str], *, system: str = "", prefix: str = ""
    ) -> Float[Tensor, "prompt choice"]:
        """The next-token logit of each choice's first token after each chat prompt and a begun answer."""
        rows = [self._prompt_ids(prompt, system) + self.encode(prefix) for prompt in prompts]
        first = torch.tensor([self.encode(choice)[0] for choice in choices])
        answers = torch.empty(len(rows), len(choices))
        shared = _common_start(rows)
        read = self._read_once(rows[0][:shared]) if shared else None
        by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(rows), ANSWER_BATCH):
            batch = by_length[start : start + ANSWER_BATCH]
            answers[batch] = self._last_logits([rows[i][shared:] for i in batch], read)[:, first]
        return answers

    def _read_once(self, ids: Sequence[int]) -> DynamicCache:
        """What the model keeps of a text that many prompts begin with."""
        read = DynamicCache(config=self._model.config)
        self._model.base_model(torch.tensor([ids], device=self.device), past_key_values=read, use_cache=True)
        return read

    def _last_logits(self, rows: Sequence[Sequence[int]], read: DynamicCache | None) -> Float[Tensor, "B V"]:
        """Logits after each row's last token. Padded on the right, where causal attention cannot see it."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self.device)
        ends, which = torch.tensor([len(row) - 1 for row in rows]).unique(return_inverse=True)
        before = copy.deepcopy(read)
        if before is not None:
            before.batch_repeat_interleave(len(rows))
        kept = self._model(
            ids, past_key_values=before, use_cache=before is not None, logits_to_keep=ends.to(self.device)
        ).logits
        return kept[torch.arange(len(rows)), which].float().cpu()

    def _prompt_ids(self, prompt: str, system: str) -> list[int]:
        if not self._tokenizer.chat_template:
            text = f"{system}\n\n{prompt}" if system else prompt
            return ([] if self.bos_id is None else [self.bos_id]) + self.encode(text)
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        # The template writes its own specials, so none are added when its text is encoded.
        return self.encode(
            self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        )


class Resumed:
    """Passes over the same windows with edits from one block on; the blocks before it run once, with the first."""

    def __init__(self, model: TransformersModel, ids: Int[Tensor, "B W"], block: int) -> None:
        self._model, self._ids, self._block = model, ids, block

    @cached_property
    def _prefix(self) -> Prefix | None:
        return self._model._prefix(self._ids, self._block)

    def logits(
        self, edits: Mapping[str, Edit] | None = None, *, at: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B W V"]:
        """As the model's own `logits` of these windows, to the bit.

        Args:
            edits: at sites of this block and later ones.
        """
        assert all(parse_site(site)[0] >= self._block for site in edits or {}), "an edit before the first site"
        with contextlib.nullcontext() if self._prefix is None else self._prefix.in_place():
            return self._model.logits(self._ids, edits, at=at)


def bos_id(tokenizer: Any) -> int | None:
    """The token put before each window: the tokenizer's bos, else its eos, else none."""
    return _first(tokenizer.bos_token_id, tokenizer.eos_token_id)


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Tokens that stand for no text."""
    marked = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(tokenizer.all_special_ids) | marked


def _weights(folder: Path, dtype: torch.dtype, random_init: int | None) -> Any:
    if random_init is None:
        return AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=dtype
        )
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_init)
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def _common_start(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with, leaving each at least one of its own."""
    if len(rows) < 2:
        return 0
    longest = min(len(row) for row in rows) - 1
    return next((i for i in range(longest) if len({row[i] for row in rows}) > 1), max(longest, 0))


def _hook(place: Place, edit: Edit) -> Any:
    def apply(hidden: Tensor) -> Tensor:
        edited = edit(hidden.float())
        assert edited.shape == hidden.shape, "an edit must keep the shape"
        return edited.to(hidden.dtype)

    if place.side == "input":
        return place.module.register_forward_pre_hook(_on_input(apply))
    return place.module.register_forward_hook(_on_output(apply))


def _on_input(apply: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any], Any]:
    return lambda _module, args: (apply(args[0]), *args[1:])


def _on_output(apply: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any, Any], Any]:
    return lambda _module, _args, output: with_hidden(output, apply(hidden_of(output)))


def _first(*ids: int | None) -> int | None:
    return next((index for index in ids if index is not None), None)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        why = "no CUDA device is here" if name == "cuda" else "unknown"
        raise ModelUnavailable(f"model.device {name!r}: {why}", hint="use auto, cpu or cuda")
    return torch.device(name)
