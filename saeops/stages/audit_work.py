"""An audit at work: what is read, in groups of documents that a kill cannot cost."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from saeops.activations.windows import Window
from saeops.diagnostics.fidelity import FidelitySums
from saeops.dictionary.bundle import Bundle
from saeops.drift.audit.config import AuditConfig
from saeops.drift.audit.documents import HeldOut, HeldOutDocuments
from saeops.drift.audit.latents import Pairing
from saeops.drift.audit.part import Part, Read, Side, relabelled
from saeops.drift.audit.sums import PairSums
from saeops.drift.audit.tabulate import Parts
from saeops.files import write_atomic
from saeops.ports import LanguageModel, Watch
from saeops.sae.canonical import Sae
from saeops.sae.codes import Codes
from saeops.stages.audit_passes import Applied, Reading, read_together, same_tokens, spliced
from saeops.stages.audit_retests import Labelled
from saeops.stats import Bootstrap

GROUP = 8
"""Documents of a part: what a kill can cost."""
_PERMUTATION = 11


@dataclass(frozen=True)
class Subject:
    """What is audited."""

    config: AuditConfig
    seed: int
    bundle: Bundle
    sae: Sae
    old: LanguageModel
    new: LanguageModel

    @property
    def same_model(self) -> bool:
        return self.old.identity.digest == self.new.identity.digest

    @property
    def draw(self) -> Bootstrap:
        return Bootstrap(self.config.resamples, self.seed)

    @property
    def reading(self) -> Reading:
        harvest = self.bundle.provenance.params["harvest"]
        return Reading(int(harvest["context_size"]), int(harvest["batch_windows"]), self.config.windows)


@dataclass(frozen=True)
class Reader:
    """Reads what an audit needs, part by part."""

    subject: Subject
    chosen: HeldOutDocuments
    work: Path
    random_model: Callable[[], LanguageModel]
    watch: Watch

    @property
    def documents(self) -> Sequence[HeldOut]:
        return self.chosen.audited

    @cached_property
    def tokens_agree(self) -> bool:
        return same_tokens(self.subject.old, self.subject.new, self.documents)

    @cached_property
    def pairing(self) -> Pairing:
        if self.subject.same_model:
            return "none"
        return "tokens" if self.tokens_agree else "documents"

    @cached_property
    def labelled(self) -> Labelled:
        return Labelled.of(self.subject.bundle, self.subject.config)

    @cached_property
    def name_F(self) -> np.ndarray:
        """The permutation of the permuted null: every latent gets another one's name."""
        generator = np.random.default_rng([self.subject.seed, _PERMUTATION])
        order = generator.permutation(self.subject.sae.meta.d_sae)
        name_F = np.empty_like(order)
        name_F[order] = np.roll(order, 1)
        return name_F

    def windows(self, model: LanguageModel, start: int, stop: int) -> list[Window]:
        reading, sae = self.subject.reading, self.subject.sae
        numbered = enumerate(self.documents[start:stop], start=start)
        return [w for number, document in numbered for w in reading.cut(number, document.text, model, sae)]

    @cached_property
    def old(self) -> Applied:
        subject = self.subject
        first = self.windows(subject.old, 0, GROUP)[: subject.reading.batch_windows]
        return Applied.of(subject.old, subject.sae, first, own=True)

    @cached_property
    def new(self) -> Applied:
        subject = self.subject
        if subject.same_model:
            return self.old
        first = self.windows(subject.new, 0, GROUP)[: subject.reading.batch_windows]
        return Applied.of(subject.new, subject.sae, first, own=False)

    def parts(self) -> Parts:
        """Every group of documents, those of a killed run read back."""
        chars = np.array([len(document.text) for document in self.documents], dtype=np.float64)
        exposure = chars if self.pairing == "documents" else None
        return self._parts("both models", len(self.documents), self.group, exposure)

    def random_parts(self) -> Parts:
        """The first documents again, with a random-init copy of the old model in the new one's place."""
        model = self.random_model()
        side = Applied(model, self.subject.sae, (None, None))
        stop = min(self.subject.config.null_documents, len(self.documents))
        return self._parts(
            "random-init model", stop, lambda at, end: self._paired([self.old, side], at, end, masked_by=1)
        )

    def _parts(
        self, what: str, stop: int, make: Callable[[int, int], Part], exposure: np.ndarray | None = None
    ) -> Parts:
        # At least two groups, so that there are two halves of the documents.
        size = min(GROUP, max(1, stop // 2))
        found = []
        with self.watch.bar(f"audit: {what}", stop, "documents") as bar:
            for start in range(0, stop, size):
                end = min(start + size, stop)
                path = self.work / f"{what.split()[0]}-{start:06d}.npz"
                part = _read_part(path)
                if part is None:
                    part = make(start, end)
                    write_atomic(path, part.to_bytes())
                found.append(part)
                bar.advance(end - start)
        return Parts(tuple(found), self.subject.sae.meta.d_sae, self.subject.config.top_contexts, exposure)

    def group(self, start: int, stop: int) -> Part:
        match self.pairing:
            case "none":
                return self._paired([self.old], start, stop, masked_by=1)
            case "tokens":
                return self._paired([self.old, self.new], start, stop, masked_by=2)
            case "documents":
                return self._apart(start, stop)

    def _paired(self, sides: Sequence[Applied], start: int, stop: int, *, masked_by: int) -> Part:
        windows = self.windows(self.subject.old, start, stop)
        batches = read_together(sides, windows, self.subject.reading, masked_by=masked_by)
        read = [_joined(parts) for parts in zip(*batches, strict=True)]
        old, new = read[0], read[-1]
        permuted = PairSums.of(old.document_T, old.codes, relabelled(new.codes, self.name_F))
        pairs = PairSums.of(old.document_T, old.codes, new.codes)
        return Part(pairs, permuted, self._side(old, start, stop), self._side(new, start, stop))

    def _apart(self, start: int, stop: int) -> Part:
        """Each model on its own tokens of the same documents."""
        read = []
        for side in (self.old, self.new):
            windows = self.windows(side.model, start, stop)
            batches = read_together([side], windows, self.subject.reading, masked_by=1)
            read.append(_joined([batch[0] for batch in batches]))
        old, new = read
        pairs = PairSums.apart(old.document_T, old.codes, new.document_T, new.codes)
        return Part(pairs, pairs, self._side(old, start, stop), self._side(new, start, stop))

    def _side(self, read: Read, start: int, stop: int) -> Side:
        return Side.of(
            read,
            first=start,
            documents=stop - start,
            top=self.subject.config.top_contexts,
            labelled=np.array(sorted(self.labelled.labels), dtype=np.int64),
        )

    def spliced(self) -> Iterator[FidelitySums]:
        """Of the old model, then of the new: the same windows, and the same tokens where the tokenizers agree."""
        count = min(self.subject.config.fidelity_documents, len(self.documents))
        sides = [(self.old, self.new), (self.new, self.old)][: 1 if self.subject.same_model else 2]
        with self.watch.bar("audit: fidelity", count * len(sides), "documents") as bar:
            for side, other in sides:
                firsts = [window for window in self.windows(side.model, 0, count) if window.start == 0]
                others = [other] if self.pairing == "tokens" else []
                yield spliced(side, firsts, others, advance=bar.advance)


def _joined(reads: Sequence[Read]) -> Read:
    tensors = {
        name: torch.cat([getattr(read, name) for read in reads])
        for name in ("document_T", "position_T", "window_T", "y_TE", "y_hat_TE")
    }
    return Read(**tensors, codes=Codes.concatenate([read.codes for read in reads]))


def _read_part(path: Path) -> Part | None:
    try:
        return Part.from_bytes(path.read_bytes())
    except (OSError, ValueError, KeyError, EOFError):
        return None
