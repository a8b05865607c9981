"""From the parts of an audit to its tables and figures.

# F latent, U document, H documents in the first half
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from saeops.diagnostics.fidelity import FidelitySums
from saeops.diagnostics.reconstruction import SUMS
from saeops.drift.audit.bounds import correlation
from saeops.drift.audit.config import LatentPolicy
from saeops.drift.audit.contexts import Strongest, overlap
from saeops.drift.audit.histograms import distance_octaves
from saeops.drift.audit.latents import JudgedLatents, Pairing, judge_latents, points
from saeops.drift.audit.metrics import Compared
from saeops.drift.audit.part import Part, Side, side_documents
from saeops.drift.audit.sums import Exposed, PairSums
from saeops.metrics import Metric, measure_all
from saeops.stats import Bootstrap, Interval

Array = np.ndarray


@dataclass(frozen=True)
class Parts:
    """All groups of documents, in order."""

    parts: tuple[Part, ...]
    latents: int
    top: int
    exposure_U: Float[Array, " U"] | None = None
    """What each document holds where tokens differ: characters. None: the tokens that were counted."""

    def sides(self, side: str) -> list[Side]:
        return [getattr(part, side) for part in self.parts]

    @cached_property
    def exposed(self) -> Exposed:
        return self._exposed([part.pairs for part in self.parts])

    @cached_property
    def permuted(self) -> Exposed:
        return self._exposed([part.permuted for part in self.parts])

    @property
    def tokens_U(self) -> Float[Array, " U"]:
        """Tokens counted of each document, on the old side."""
        return np.concatenate([side.sums_US[:, SUMS.index("tokens")] for side in self.sides("old")])

    @property
    def first_U(self) -> Bool[Array, " U"]:
        """Documents of the first half: those of the first half of the groups."""
        sizes = [len(part.old.sums_US) for part in self.parts]
        ends = np.cumsum(sizes)
        half = int(ends[max(0, int(np.searchsorted(ends, ends[-1] / 2)))]) if len(ends) > 1 else 0
        return np.arange(ends[-1]) < (half if half < ends[-1] else int(ends[-2]) if len(ends) > 1 else 0)

    def histograms(self, side: str, *, first: bool | None = None) -> Int[Array, "F B"]:
        """Summed over all documents, or over those of one half."""
        start, total = 0, np.zeros_like(self.parts[0].old.histogram_FB, dtype=np.int64)
        first_U = self.first_U
        for part in self.sides(side):
            if first is None or bool(first_U[start]) == first:
                total += part.histogram_FB
            start += len(part.sums_US)
        return total

    def strongest(self, side: str) -> Strongest:
        """The strongest windows over all groups; rows count on through the groups."""
        shifted, start = [], 0
        for part in self.sides(side):
            shifted.append(replace(part.strongest, row=part.row + start))
            start += len(part.document_T)
        return Strongest.merged(shifted, top=self.top)

    def documents(self, side: str, model: str, sha256: Sequence[str], sums: FidelitySums | None) -> pd.DataFrame:
        """AuditDocumentTable of one model."""
        sums_US, _ = side_documents(self.sides(side))
        frame = pd.DataFrame(sums_US, columns=list(SUMS))[["tokens", "error", "spread", "fired"]]
        frame.insert(0, "sha256", list(sha256[: len(frame)]))
        frame.insert(0, "model", model)
        frame.insert(0, "document", np.arange(len(frame), dtype=np.int32))
        return frame.join(_spliced(sums), on="document").fillna(0.0)

    def _exposed(self, pairs: Sequence[PairSums]) -> Exposed:
        seen = self.tokens_U if self.exposure_U is None else self.exposure_U
        return Exposed(PairSums.merged(pairs), seen, seen, self.latents)


def _spliced(sums: FidelitySums | None) -> pd.DataFrame:
    if sums is None:
        nothing = ["predictions", "ce_clean", "ce_spliced", "kl"]
        return pd.DataFrame(columns=nothing, index=pd.Index([], name="document", dtype="int64"), dtype="float64")
    name = next(iter(sums.spliced))
    columns = {"predictions": sums.tokens, "ce_clean": sums.clean, "ce_spliced": sums.spliced[name]}
    return pd.DataFrame({**columns, "kl": sums.kl[name]}, index=pd.Index(sums.document, name="document"))


def judged(parts: Parts, policy: LatentPolicy, pairing: Pairing) -> tuple[Exposed, JudgedLatents]:
    """The verdicts, and the sums they follow from; where nothing is shared, half of the documents is old."""
    exposed = parts.exposed.halves(parts.first_U) if pairing == "none" else parts.exposed
    return exposed, judge_latents(exposed, policy, pairing=pairing)


def latent_frame(
    parts: Parts, exposed: Exposed, verdicts: JudgedLatents, *, name_F: Int[Array, " F"], pairing: Pairing
) -> pd.DataFrame:
    """AuditLatentTable, labels not yet judged again.

    Args:
        name_F: the permutation under which `permuted` was summed.
    """
    F, nothing = parts.latents, np.full(parts.latents, np.nan)
    old_histogram, new_histogram = _histograms(parts, pairing)
    old, new = parts.strongest("old"), parts.strongest("new")
    same_tokens = pairing == "tokens"
    columns = {
        "latent": np.arange(F, dtype=np.int32),
        "verdict": verdicts.verdict_F.astype(str),
        "tested": verdicts.tested_F,
        "n_old": exposed.sums.by_latent("n_old", F).astype(np.int64),
        "n_new": exposed.sums.by_latent("n_new", F).astype(np.int64),
        "documents_old": exposed.sums.documents_by_latent("n_old", F).astype(np.int32),
        **_three("density_ratio", verdicts, F),
        **_three("activation_ratio", verdicts, F),
        **_three("correlation", verdicts, F),
        "permuted_correlation": correlation(parts.permuted).point_F if same_tokens else nothing,
        "histogram_distance": distance_octaves(old_histogram, new_histogram),
        "histogram_noise": distance_octaves(
            parts.histograms("old", first=True), parts.histograms("old", first=False)
        ),
        "context_overlap": overlap(old, new, F) if same_tokens else nothing,
        "permuted_overlap": overlap(old, new.relabelled(name_F), F) if same_tokens else nothing,
        "label_confidence_old": nothing,
        "label_confidence_new": nothing,
    }
    return pd.DataFrame(columns)


def _histograms(parts: Parts, pairing: Pairing) -> tuple[Array, Array]:
    if pairing == "none":
        return parts.histograms("old", first=True), parts.histograms("old", first=False)
    return parts.histograms("old"), parts.histograms("new")


def _three(column: str, verdicts: JudgedLatents, latents: int) -> dict[str, Array]:
    bounded = {
        "density_ratio": verdicts.density,
        "activation_ratio": verdicts.activation,
        "correlation": verdicts.correlation,
    }[column]
    return dict(zip((column, f"{column}_low", f"{column}_high"), points(bounded, latents), strict=True))


def permuted_metrics(
    latents: pd.DataFrame, metrics: Sequence[Metric[Compared]], draw: Bootstrap
) -> dict[str, Interval]:
    """What the figures that compare a latent with itself are where it is compared with another."""
    columns = {"correlation": "permuted_correlation", "context_overlap": "permuted_overlap"}
    dealt = latents.assign(**{name: latents[null] for name, null in columns.items()})
    nothing = pd.DataFrame()
    return measure_all(metrics, Compared(dealt, nothing, nothing), draw)
