"""A genuine new version of a language model: a short fine-tuning on text of one kind.

For trying out what happens when a model changes; not a way to make a better model.

# B window, W position in a window
"""

import hashlib
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from saeops.activations.windows import Window, cut_windows, pad_windows, window_lengths
from saeops.adapters.model_source import ModelFolder
from saeops.adapters.models import bos_id
from saeops.errors import CorpusTooSmall, FolderInUse, NonFinite
from saeops.files import explained, publish_folder
from saeops.ports import Document, Watch
from saeops.stats import Interval, UnitSums, difference_interval, ratio_interval

MIN_CHARS, MAX_CHARS = 200, 4000
HELD_OUT_EVERY = 8
"""Of the documents, one in so many is never trained on and tells what was learnt."""
HELD_OUT_DOCUMENTS = 24
RESAMPLES = 1000
WARMUP = 0.1
"""Share of the steps over which the learning rate rises; then it falls to 0."""


@dataclass(frozen=True)
class Recipe:
    """How long and how hard."""

    steps: int = 24
    batch_windows: int = 8
    context_size: int = 128
    lr: float = 1e-4
    """Peak learning rate of AdamW."""
    seed: int = 0


@dataclass(frozen=True)
class Finetuned:
    """A new version, and what it learnt."""

    path: Path
    """A transformers folder."""
    documents: int
    tokens: int
    """Predictions that were trained on, repeats counted."""
    before: Interval
    """Cross-entropy of the old version on held-out documents of the same kind, nats a token."""
    after: Interval
    difference: Interval
    """after − before, paired by document."""

    def to_json(self) -> dict[str, Any]:
        figures = {name: getattr(self, name).to_json() for name in ("before", "after", "difference")}
        return {"path": str(self.path), "documents": self.documents, "tokens": self.tokens, **figures}


def of_one_kind(documents: Iterable[Document], kind: str, *, seen: Collection[str], limit: int) -> list[Document]:
    """The first documents whose source contains `kind`.

    Args:
        seen: sha256 of texts that are left out, so that nobody's held-out documents are trained on.

    Raises:
        CorpusTooSmall: there are hardly any.
    """
    found: dict[str, Document] = {}
    for document in documents:
        text = document.text[:MAX_CHARS]
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        if kind in document.source and len(text) >= MIN_CHARS and digest not in seen:
            found.setdefault(digest, Document(text, document.source))
        if len(found) == limit:
            break
    if len(found) < 2 * HELD_OUT_EVERY:
        raise CorpusTooSmall(
            f"{len(found)} unseen documents have {kind!r} in their source; {2 * HELD_OUT_EVERY} are needed",
            hint="name another kind of text, e.g. --kind torch/; the corpus's sources stand in documents.parquet",
        )
    return list(found.values())


def finetune(
    folder: ModelFolder, documents: Sequence[Document], to: Path, recipe: Recipe, *, watch: Watch
) -> Finetuned:
    """Fine-tune the model on the documents and leave the new version in `to`, whole or not at all.

    Raises:
        FolderInUse: something is there already.
        NonFinite: training diverged.
        DiskFull: no room for the new version.
    """
    if to.exists():
        raise FolderInUse(f"{to} is there already", hint="remove it, or name another folder")
    learner = _Learner(folder, recipe)
    windows = learner.windows(documents)
    held_out = [window for window in windows if window.document % HELD_OUT_EVERY == 0]
    held_out = [w for w in held_out if w.document < HELD_OUT_EVERY * HELD_OUT_DOCUMENTS]
    before = learner.losses(held_out, "held out, before", watch)
    tokens = learner.learn([w for w in windows if w.document % HELD_OUT_EVERY], watch)
    after = learner.losses(held_out, "held out, after", watch)
    learner.save(to)
    seed = recipe.seed
    return Finetuned(
        to,
        len(documents),
        tokens,
        ratio_interval(*before, resamples=RESAMPLES, seed=seed),
        ratio_interval(*after, resamples=RESAMPLES, seed=seed),
        difference_interval(after, before, resamples=RESAMPLES, seed=seed),
    )


class _Learner:
    """The model with its weights free to move."""

    def __init__(self, folder: ModelFolder, recipe: Recipe) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._recipe = recipe
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            folder.path, dtype=torch.float32, local_files_only=True
        )
        self._bos = bos_id(self._tokenizer)

    def windows(self, documents: Sequence[Document]) -> list[Window]:
        size, cut = self._recipe.context_size, []
        for number, document in enumerate(documents):
            ids = self._tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"]
            cut += cut_windows(number, ids, context_size=size, bos=self._bos)
        # A window of the prepended token and one more predicts nothing worth a row of padding.
        return [window for window in cut if len(window.ids) > 2]

    def learn(self, windows: Sequence[Window], watch: Watch) -> int:
        """The steps; gives the predictions trained on."""
        recipe, tokens = self._recipe, 0
        optimiser = torch.optim.AdamW(self._model.parameters(), lr=recipe.lr, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate)
        order = torch.Generator().manual_seed(recipe.seed)
        self._model.train()
        with watch.bar("fine-tuning", recipe.steps, "steps") as bar:
            for step in range(recipe.steps):
                drawn = torch.randint(len(windows), (recipe.batch_windows,), generator=order).tolist()
                loss_BW, counts_BW = self._loss([windows[index] for index in drawn])
                loss = loss_BW.sum() / counts_BW.sum()
                if not bool(torch.isfinite(loss)):
                    raise NonFinite(f"the loss at step {step + 1} is NaN or infinite", hint="give a lower --lr")
                loss.backward()
                clip_grad_norm_(self._model.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                optimiser.zero_grad(set_to_none=True)
                tokens += int(counts_BW.sum())
                value = float(loss.detach())
                watch.metrics({"finetune.loss": value}, step=step + 1)
                bar.advance(1, loss=f"{value:.3f}")
        return tokens

    def _rate(self, step: int) -> float:
        warmup = max(1, round(WARMUP * self._recipe.steps))
        return min((step + 1) / warmup, (self._recipe.steps - step) / (self._recipe.steps - warmup + 1))

    @torch.no_grad()
    def losses(self, windows: Sequence[Window], title: str, watch: Watch) -> UnitSums:
        """Summed loss and predictions of each document."""
        self._model.eval()
        sums: dict[int, tuple[float, float]] = {}
        size = self._recipe.batch_windows
        with watch.bar(title, len(windows), "windows") as bar:
            for start in range(0, len(windows), size):
                batch = windows[start : start + size]
                loss_BW, counts_BW = self._loss(batch)
                for window, loss, count in zip(batch, loss_BW.sum(1), counts_BW.sum(1), strict=True):
                    before = sums.get(window.document, (0.0, 0.0))
                    sums[window.document] = (before[0] + float(loss), before[1] + float(count))
                bar.advance(len(batch))
        return UnitSums(*(np.array(column) for column in zip(*sums.values(), strict=True)))

    def _loss(self, windows: Sequence[Window]) -> tuple[Float[Tensor, "B W"], Float[Tensor, "B W"]]:
        """Loss of every next token, 0 on padding, and which positions count."""
        ids_BW = pad_windows(windows)
        at_W = torch.arange(1, ids_BW.shape[1])
        counts_BW = (at_W[None, :] < window_lengths(windows)[:, None]).float()
        logits_BWV = self._model(ids_BW, use_cache=False).logits[:, :-1]
        loss_BW = cross_entropy(logits_BWV.flatten(0, 1), ids_BW[:, 1:].flatten(), reduction="none")
        return loss_BW.view_as(counts_BW) * counts_BW, counts_BW

    def save(self, to: Path) -> None:
        work = to.with_name(f".{to.name}.saving")
        with explained(to):
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            self._model.save_pretrained(work)
            self._tokenizer.save_pretrained(work)
        publish_folder(work, to)
