"""Harvest: documents → windows → one forward pass each → masked activations in shards."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saeops.activations.reader import ActivationSet
from saeops.activations.schema import (
    DOCUMENTS,
    KIND,
    SHARDS,
    VERSION,
    DocumentTable,
    ShardTable,
    TokenBatch,
    concatenate,
    in_order,
)
from saeops.activations.selection import Choice, Selection, Tokenizer, reselect, select
from saeops.activations.split import SPLITS
from saeops.activations.store import Pieces, ShardFacts, stored_as, write_shard
from saeops.activations.windows import (
    Window,
    cut_windows,
    document_positions,
    norm_limit,
    norm_mask,
    pad_windows,
    position_mask,
    prepended,
    window_lengths,
)
from saeops.digests import digest_file, digest_json
from saeops.files import publish_folder
from saeops.params import Params, check_against_model
from saeops.ports import Bar, Corpus, LanguageModel, Watch
from saeops.refs import Ref, Workspace
from saeops.sealed import kept, seal
from saeops.stages.kept_shards import KeptShards
from saeops.tables import read_table, write_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Piece:
    """The windows behind one shard of each site: the unit of work that a kill can cost."""

    split: str
    shard: int
    windows: tuple[Window, ...]

    @property
    def name(self) -> str:
        return f"{self.split}-{self.shard:05d}"


def run(params: Params, space: Workspace, *, model: LanguageModel, corpus: Corpus, watch: Watch) -> Ref:
    """Harvest `params.harvest.tokens` tokens at each site into `artifacts/activations`.

    A rerun after a kill keeps the finished shards and ends with the same bytes.

    Raises:
        SiteUnknown: the model has no such site.
        ParamsInvalid: k or d_sae do not fit the model.
        CorpusMissing, CorpusTooSmall: no documents, or too few for the splits.
        NonFinite: NaN, infinity or an overflow, with the site and shard.
        DiskFull: no space is left; finished shards are kept.
        FolderDamaged: the finished set of these inputs has changed since it was sealed.
    """
    source = _Source(
        _inputs(params, model, corpus),
        corpus.identity,
        lambda pieces: _choose(pieces, params, model, corpus, watch),
    )
    return _made(params, space, model=model, source=source, watch=watch)


def run_again(params: Params, space: Workspace, *, acts: ActivationSet, model: LanguageModel, watch: Watch) -> Ref:
    """Harvest `params.harvest.tokens` tokens of an earlier set's documents with another model (see `reselect`).

    Both models have one tokenizer: the documents are read as the set holds them, so they are the same tokens
    in the same splits. Killed and rerun as `run`, with the same errors.
    """
    documents = {"sha256": acts.sealed.files[DOCUMENTS]["sha256"]}
    source = _Source(
        _inputs_but_corpus(params, model) | {"documents": documents},
        acts.sealed.summary["corpus"],
        lambda pieces: _choose_again(pieces, acts, params.harvest.tokens),
    )
    return _made(params, space, model=model, source=source, watch=watch)


@dataclass(frozen=True)
class _Source:
    """Where a harvest's documents come from."""

    inputs: Mapping[str, Any]
    """Everything that determines the set."""
    corpus: Mapping[str, Any]
    """The corpus's identity."""
    choose: Callable[[Pieces], Selection]


def _made(params: Params, space: Workspace, *, model: LanguageModel, source: _Source, watch: Watch) -> Ref:
    """The sealed set of this source: the one that stands, or one harvested now."""
    widths = {site: model.width(site) for site in params.harvest.sites}
    check_against_model(params, d_model=model.width(params.train.site))
    work = space.work("harvest", digest_json(source.inputs))
    done = kept(space.activations, kind=KIND, inputs=source.inputs)
    if done is not None:
        shutil.rmtree(work, ignore_errors=True)
        watch.say("harvest: nothing changed, the activations are kept")
        return Ref.of(done)
    pieces = Pieces(work)
    pieces.tidy()
    chosen = source.choose(pieces)
    limits, shards = _harvest(pieces, params, space, model, source, chosen, watch)
    write_table(_shard_table(shards), pieces.files / SHARDS, ShardTable, rows=len(shards))
    summary = _summary(params, model, source.corpus, chosen, shards, widths, limits)
    seal(pieces.files, kind=KIND, version=VERSION, inputs=source.inputs, summary=summary)
    publish_folder(pieces.files, space.activations)
    shutil.rmtree(work, ignore_errors=True)
    sealed = kept(space.activations, kind=KIND, inputs=source.inputs)
    assert sealed is not None
    watch.metrics({f"tokens_{split}": float(count) for split, count in summary["tokens"].items()})
    watch.metrics({f"documents_{split}": float(count) for split, count in summary["documents"].items()})
    return Ref.of(sealed)


def _inputs(params: Params, model: LanguageModel, corpus: Corpus) -> dict[str, Any]:
    """Everything that determines the set; places and addresses are left out."""
    return _inputs_but_corpus(params, model) | {
        "corpus": dict(corpus.identity),
        "corpus_params": params.corpus.model_dump(mode="json", exclude={"source", "path"}),
    }


def _inputs_but_corpus(params: Params, model: LanguageModel) -> dict[str, Any]:
    return {
        "model": model.identity.digest,
        "model_dtype": params.model.dtype,
        "harvest": params.harvest.model_dump(mode="json"),
        "seed": params.seed,
    }


# ── documents ───────────────────────────────────────────────────────────────


def _choose(pieces: Pieces, params: Params, model: LanguageModel, corpus: Corpus, watch: Watch) -> Selection:
    note = pieces.finished("documents")
    path = pieces.files / DOCUMENTS
    if note is None:
        wanted = params.harvest.tokens
        with watch.bar("choosing documents", wanted, "tokens") as bar:
            chosen = select(
                corpus.documents(),
                Tokenizer(model.encode, model.bos_id, model.special_ids),
                _choice(params),
                progress=bar.advance,
            )
        if chosen.tokens < wanted:
            watch.say(f"harvest: the corpus ends after {chosen.tokens:,} of {wanted:,} tokens")
        write_table(chosen.documents, path, DocumentTable)
        note = {"dropped": chosen.dropped, "read": chosen.read, "tokens": chosen.tokens}
        pieces.finish("documents", {DOCUMENTS: digest_file(path)}, note)
    return Selection(documents=read_table(path, DocumentTable), **note)


def _choose_again(pieces: Pieces, acts: ActivationSet, tokens: int) -> Selection:
    chosen = reselect(acts.documents, tokens=tokens)
    write_table(chosen.documents, pieces.files / DOCUMENTS, DocumentTable)
    return chosen


def _choice(params: Params) -> Choice:
    return Choice(
        tokens=params.harvest.tokens,
        min_chars=params.corpus.min_chars,
        max_chars=params.corpus.max_chars,
        max_documents=params.corpus.max_documents,
        context_size=params.harvest.context_size,
        policy=params.harvest.policy,
        splits=params.harvest.splits,
        seed=params.seed,
    )


def _plan(documents: "pd.DataFrame", params: Params, bos: int | None) -> list[Piece]:
    """The same pieces of the same windows, whatever was finished before: so a rerun gives the same bytes."""
    harvest = params.harvest
    batch_tokens = harvest.batch_windows * (harvest.context_size - (bos is not None))
    size = harvest.batch_windows * max(1, harvest.shard_tokens // batch_tokens)
    plan = []
    for split in SPLITS:
        chosen = documents[documents["split"] == split]
        windows = [
            window
            for document, tokens in zip(chosen["document"], chosen["tokens"], strict=True)
            for window in cut_windows(int(document), tokens.tolist(), context_size=harvest.context_size, bos=bos)
        ]
        plan += [
            Piece(split, number, tuple(windows[start : start + size]))
            for number, start in enumerate(range(0, len(windows), size))
        ]
    return plan


# ── activations ─────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Captured:
    """One batch of windows: activations at each site, and which positions count before norms."""

    windows: Sequence[Window]
    ids: Tensor
    sites: Mapping[str, Float[Tensor, "B W D"]]
    counts: Bool[Tensor, "B W"]


class _Harvester:
    """The model with the policy and sites that one harvest reads it by."""

    def __init__(self, params: Params, model: LanguageModel) -> None:
        self._params = params.harvest
        self._model = model
        self.bos = prepended(params.harvest.policy, model.bos_id)

    def captured(self, windows: Sequence[Window]) -> Iterator[Captured]:
        """Forward passes over the windows, `batch_windows` at a time."""
        policy, size = self._params.policy, self._params.batch_windows
        for start in range(0, len(windows), size):
            batch = windows[start : start + size]
            ids = pad_windows(batch)
            counts = position_mask(ids, window_lengths(batch), policy, self._model.special_ids, bos=self.bos)
            yield Captured(batch, ids, self._model.capture(ids, self._params.sites), counts)

    def limits(self, windows: Sequence[Window]) -> dict[str, float | None]:
        """The largest norm that counts at each site, from the first batch of windows."""
        first = next(self.captured(windows))
        policy = self._params.policy
        return {
            site: norm_limit(x_BWD, first.counts.to(x_BWD.device), policy) for site, x_BWD in first.sites.items()
        }

    def harvest(
        self, piece: Piece, limits: Mapping[str, float | None], folder: Path, bar: Bar
    ) -> list[ShardFacts]:
        """Run one piece's windows and write a shard a site."""
        parts: dict[str, list[TokenBatch]] = {site: [] for site in self._params.sites}
        outliers = 0
        # Windows of like length share a batch: one token in six would be padding otherwise.
        for captured in self.captured(sorted(piece.windows, key=lambda window: len(window.ids))):
            keep_BW = captured.counts.clone()
            for site, x_BWD in captured.sites.items():
                # One mask for all sites: a token is in each site's shard or in none.
                keep_BW &= norm_mask(x_BWD, limits[site]).cpu()
            outliers += int(captured.counts.sum() - keep_BW.sum())
            positions_BW = document_positions(captured.windows, captured.ids.shape[1], bos=self.bos)
            documents_BW = torch.tensor([w.document for w in captured.windows])[:, None].expand_as(keep_BW)
            for site, x_BWD in captured.sites.items():
                name = f"{site}/{piece.name}"
                kept_TD = stored_as(x_BWD[keep_BW.to(x_BWD.device)], self._params.dtype, name=name)
                parts[site].append(
                    TokenBatch(kept_TD, documents_BW[keep_BW], positions_BW[keep_BW], captured.ids[keep_BW])
                )
            bar.advance(int(captured.counts.sum()))
        return [
            write_shard(
                folder,
                site,
                piece.split,
                piece.shard,
                in_order(concatenate(batches)),
                outliers=outliers,
                dtype=self._params.dtype,
            )
            for site, batches in parts.items()
        ]


Limits = dict[str, float | None]


def _harvest(
    pieces: Pieces,
    params: Params,
    space: Workspace,
    model: LanguageModel,
    source: _Source,
    chosen: Selection,
    watch: Watch,
) -> tuple[Limits, list[ShardFacts]]:
    harvester = _Harvester(params, model)
    plan = _plan(chosen.documents, params, harvester.bos)
    limits = _limits(pieces, harvester, plan)
    earlier = KeptShards.of(
        space.activations,
        source.inputs,
        limits,
        lambda documents: {piece.name: piece.windows for piece in _plan(documents, params, harvester.bos)},
    )
    shards: list[ShardFacts] = []
    kept_pieces = 0
    with watch.bar("harvesting", chosen.tokens, "tokens") as bar:
        for piece in plan:
            note = pieces.finished(piece.name)
            if note is not None:
                facts = [ShardFacts(**entry) for entry in note["shards"]]
                bar.advance(facts[0].tokens + facts[0].outliers)
            else:
                taken = earlier.take(piece.name, piece.windows, pieces.files) if earlier else None
                kept_pieces += taken is not None
                facts = taken or harvester.harvest(piece, limits, pieces.files, bar)
                if taken:
                    bar.advance(taken[0].tokens + taken[0].outliers)
                checksums = {shard.name: shard.sha256 for shard in facts}
                pieces.finish(piece.name, checksums, {"shards": [vars(shard) for shard in facts]})
            shards += facts
    if kept_pieces:
        watch.say(f"harvest: {kept_pieces} of {len(plan)} shards a site are taken over, for they did not change")
    return limits, shards


def _limits(pieces: Pieces, harvester: _Harvester, plan: Sequence[Piece]) -> Limits:
    note = pieces.finished("norms")
    if note is None:
        note = {"limits": harvester.limits(plan[0].windows)}
        pieces.finish("norms", {}, note)
    return dict(note["limits"])


# ── what is said about the set ──────────────────────────────────────────────


def _shard_table(shards: Sequence[ShardFacts]) -> "pd.DataFrame":
    import pandas as pd

    table = pd.DataFrame([shard.row() for shard in shards])
    return table.astype({"shard": "int32"}).sort_values(["site", "split", "shard"], ignore_index=True)


def _summary(
    params: Params,
    model: LanguageModel,
    corpus: Mapping[str, Any],
    chosen: Selection,
    shards: Sequence[ShardFacts],
    widths: Mapping[str, int],
    limits: Limits,
) -> dict[str, Any]:
    first = [shard for shard in shards if shard.site == params.harvest.sites[0]]
    splits = chosen.documents["split"]
    return {
        "model": model.identity.to_json(),
        "policy": params.harvest.policy.model_dump(mode="json"),
        "context_size": params.harvest.context_size,
        "bos_id": model.bos_id,
        "sites": {
            site: {
                "d_model": widths[site],
                "norm_limit": limits[site],
                "norm_quantiles": _norm_quantiles([shard for shard in shards if shard.site == site]),
            }
            for site in params.harvest.sites
        },
        "tokens": {split: sum(s.tokens for s in first if s.split == split) for split in SPLITS},
        "documents": {split: int((splits == split).sum()) for split in SPLITS},
        "documents_total": len(chosen.documents),
        "documents_read": chosen.read,
        "dropped": {**chosen.dropped, "outlier_tokens": sum(shard.outliers for shard in first)},
        "corpus": dict(corpus),
    }


def _norm_quantiles(shards: Sequence[ShardFacts]) -> dict[str, float]:
    """Norm quantiles of a site: those of its shards, averaged by tokens."""
    total = sum(shard.tokens for shard in shards)
    return {
        name: sum(getattr(shard, f"norm_{name}") * shard.tokens for shard in shards) / total
        for name in ("q05", "q50", "q95")
    }
