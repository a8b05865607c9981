"""Reading an activation set: opened cheaply, each shard checked when it is first read."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from saeops.activations.policy import TokenPolicy
from saeops.activations.schema import (
    DOCUMENTS,
    KIND,
    SHARDS,
    DocumentTable,
    ShardTable,
    TokenBatch,
    in_fp32,
    shard_name,
)
from saeops.activations.store import ShardFacts
from saeops.activations.windows import Window, cut_windows, prepended
from saeops.digests import digest_file
from saeops.errors import FolderDamaged, ModelMismatch, SiteUnknown
from saeops.sealed import Sealed, open_sealed
from saeops.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

MADE_BY = "saeops harvest"


@dataclass(frozen=True)
class Shard:
    """One shard file of a site and split."""

    name: str
    tokens: int


@dataclass(frozen=True)
class ActivationSet:
    """A sealed activation set."""

    sealed: Sealed
    _checked: set[str] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path) -> "ActivationSet":
        """Read the manifest; shards are checked when they are read.

        Raises:
            StageMissing: nothing was harvested there.
            FolderDamaged: a file is missing, extra or of another size.
        """
        return cls(open_sealed(folder, kind=KIND, made_by=MADE_BY))

    @property
    def model(self) -> dict[str, Any]:
        """Identity of the model that was read."""
        return dict(self.sealed.summary["model"])

    @property
    def policy(self) -> TokenPolicy:
        return TokenPolicy.model_validate(self.sealed.summary["policy"])

    @property
    def context_size(self) -> int:
        return int(self.sealed.summary["context_size"])

    @property
    def bos(self) -> int | None:
        """The token put before each window, if any."""
        return prepended(self.policy, self.sealed.summary["bos_id"])

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.sealed.summary["sites"])

    def width(self, site: str) -> int:
        """d_model at the site."""
        return int(self._site(site)["d_model"])

    def norm_limit(self, site: str) -> float | None:
        """The largest norm that counts at the site; None keeps all."""
        limit = self._site(site)["norm_limit"]
        return None if limit is None else float(limit)

    def count(self, site: str, split: str) -> int:
        """Tokens at a site in a split."""
        return sum(shard.tokens for shard in self.shard_list(site, split))

    @cached_property
    def documents(self) -> "pd.DataFrame":
        """One row a document (DocumentTable)."""
        rows = int(self.sealed.summary["documents_total"])
        return read_table(self.checked_path(DOCUMENTS), DocumentTable, rows=rows)

    @cached_property
    def _shard_table(self) -> "pd.DataFrame":
        return read_table(self.checked_path(SHARDS), ShardTable)

    def shard_list(self, site: str, split: str) -> list[Shard]:
        """The shard files of a site and split, in order."""
        self._site(site)
        table = self._shard_table
        chosen = table[(table["site"] == site) & (table["split"] == split)].sort_values("shard")
        return [
            Shard(shard_name(site, split, int(number)), int(tokens))
            for number, tokens in zip(chosen["shard"], chosen["tokens"], strict=True)
        ]

    def facts(self, split: str, number: str) -> list[ShardFacts]:
        """What is known of one piece's shards, site by site."""
        table = self._shard_table
        rows = table[(table["split"] == split) & (table["shard"] == int(number))]
        found = []
        for row in rows.to_dict("records"):
            known = {str(name): value for name, value in row.items()}
            name = shard_name(known["site"], split, int(number))
            found.append(ShardFacts(**known, sha256=self.sealed.files[name]["sha256"]))
        return found

    def read(self, shard: Shard, start: int = 0, stop: int | None = None) -> TokenBatch:
        """Tokens `start` to `stop` of one shard, in the precision they are stored in.

        Raises:
            FolderDamaged: the shard's bytes are not those that were sealed.
        """
        path = self.checked_path(shard.name)
        with safe_open(path, framework="pt") as file:
            parts = {
                key: file.get_slice(key)[start : shard.tokens if stop is None else stop]
                for key in ("activations", "document", "position", "token")
            }
        return TokenBatch(**parts)

    def shards(self, site: str, split: str) -> Iterator[TokenBatch]:
        """Shard by shard, in order of document and position."""
        for shard in self.shard_list(site, split):
            yield self.read(shard)

    def batches(self, site: str, split: str, size: int) -> Iterator[TokenBatch]:
        """Batches of at most `size` tokens, fp32, in order of document and position; none spans two shards."""
        for shard in self.shard_list(site, split):
            for start in range(0, shard.tokens, size):
                yield in_fp32(self.read(shard, start, min(start + size, shard.tokens)))

    def windows(self, split: str, limit_documents: int | None = None) -> list[Window]:
        """The windows that were harvested, rebuilt from the documents, in order."""
        table = self.documents
        chosen = table[table["split"] == split].sort_values("document").head(limit_documents or len(table))
        return [
            window
            for document, tokens in zip(chosen["document"], chosen["tokens"], strict=True)
            for window in cut_windows(int(document), tokens.tolist(), context_size=self.context_size, bos=self.bos)
        ]

    def _site(self, site: str) -> dict[str, Any]:
        facts = self.sealed.summary["sites"].get(site)
        if facts is None:
            raise SiteUnknown(
                f"{site} was not harvested into {self.sealed.path}",
                hint=f"harvested: {', '.join(self.sites)}; add it to harvest.sites and run `{MADE_BY}`",
            )
        return dict(facts)

    def checked_path(self, name: str) -> Path:
        """A file of the set, its sha256 checked the first time it is asked for.

        Raises:
            FolderDamaged: its bytes are not those that were sealed.
        """
        path = self.sealed.path / name
        if name in self._checked:
            return path
        if not path.is_file() or digest_file(path) != self.sealed.files[name]["sha256"]:
            raise FolderDamaged(
                f"{path}: its bytes changed since it was sealed",
                hint=f"remove {self.sealed.path} and run `{MADE_BY}` again",
            )
        self._checked.add(name)
        return path


def check_model(acts: ActivationSet, digest: str) -> None:
    """Refuse to use activations of one model with another.

    Args:
        digest: identity digest of the model at hand.

    Raises:
        ModelMismatch: the set was harvested from a model of another digest.
    """
    harvested = acts.model
    if harvested["digest"] != digest:
        raise ModelMismatch(
            f"{acts.sealed.path} was harvested from {harvested['ref']} ({harvested['digest'][:12]}),"
            f" the model at hand is {digest[:12]}",
            hint=f"run `{MADE_BY}` again with this model, or set model.ref back",
        )
