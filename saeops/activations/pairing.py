"""The same tokens at two sites: where an SAE reads, and what it is to give back.

An autoencoder's two sites are one. The harvest keeps a token at every site or at none, in one order, so two
sites pair row by row; here that is checked on every batch, and never mended by guessing.

# T token, D width of the input, E width of the target
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saeops.activations.reader import ActivationSet
from saeops.activations.schema import TokenBatch
from saeops.activations.shuffle import Shards, ShuffledTokens
from saeops.activations.sites import Sites
from saeops.errors import SitesUnpaired

HINT = "remove the set and run `saeops harvest` again"


@dataclass(frozen=True)
class PairedTokens:
    """The same tokens at both sites."""

    tokens: TokenBatch
    """At the input site."""
    y_TE: Float[Tensor, "T E"]
    """Activations at the target site; the very tensor of the input where the sites are one."""

    @property
    def x_TD(self) -> Float[Tensor, "T D"]:
        """Activations at the input site."""
        return self.tokens.activations

    def __len__(self) -> int:
        return len(self.tokens)


def batches_in_order(acts: ActivationSet, sites: Sites, split: str, size: int) -> Iterator[PairedTokens]:
    """As `ActivationSet.batches`, at both sites.

    Raises:
        SiteUnknown: a site was not harvested.
        SitesUnpaired: the sites do not hold the same tokens.
    """
    check_shards(acts, sites, split)
    return _paired(sites, lambda site: acts.batches(site, split, size))


def shuffled_batches(
    acts: Shards,
    sites: Sites,
    split: str = "train",
    *,
    batch_size: int,
    buffer_tokens: int,
    seed: int,
    start_step: int = 0,
) -> Iterator[PairedTokens]:
    """As `ShuffledTokens`, at both sites in one order; each site holds a buffer of its own.

    The order follows from the seed and the shards' sizes, which are the same at every site.

    Raises:
        SiteUnknown: a site was not harvested.
        StageMissing: the split holds no tokens.
        SitesUnpaired: the sites do not hold the same tokens.
    """
    check_shards(acts, sites, split)

    def shuffled(site: str) -> ShuffledTokens:
        return ShuffledTokens(
            acts,
            site,
            split,
            batch_size=batch_size,
            buffer_tokens=buffer_tokens,
            seed=seed,
            start_step=start_step,
        )

    return _paired(sites, shuffled)


def check_shards(acts: Shards, sites: Sites, split: str) -> None:
    """Refuse sites whose shards differ in number or size, before anything is read.

    Raises:
        SitesUnpaired: as said.
    """
    sizes = [[shard.tokens for shard in acts.shard_list(site, split)] for site in (sites.input, sites.target)]
    if sizes[0] != sizes[1]:
        raise SitesUnpaired(
            f"{split} shards of {sites.input} and {sites.target} hold {sum(sizes[0]):,} and {sum(sizes[1]):,}"
            f" tokens in {len(sizes[0])} and {len(sizes[1])} files: they do not pair row by row",
            hint=HINT,
        )


def _paired(sites: Sites, read: Callable[[str], Iterable[TokenBatch]]) -> Iterator[PairedTokens]:
    if not sites.transcodes:
        return (PairedTokens(batch, batch.activations) for batch in read(sites.input))
    both = zip(read(sites.input), read(sites.target), strict=True)
    return (_pair(sites, x, y) for x, y in both)


def _pair(sites: Sites, x: TokenBatch, y: TokenBatch) -> PairedTokens:
    if not (torch.equal(x.document, y.document) and torch.equal(x.position, y.position)):
        row = int(((x.document != y.document) | (x.position != y.position)).nonzero()[0])
        raise SitesUnpaired(
            f"{sites.input} holds document {int(x.document[row])}, position {int(x.position[row])} where"
            f" {sites.target} holds document {int(y.document[row])}, position {int(y.position[row])}",
            hint=HINT,
        )
    return PairedTokens(x, y.activations)
