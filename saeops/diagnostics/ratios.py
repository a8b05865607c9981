"""Ratios of sums over documents: one declaration serves a figure, its slices and its comparison."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from saeops.stats import Bootstrap, Interval, ratio_interval

Array = np.ndarray
Column = Callable[[pd.DataFrame], Float[Array, " document"]]


def column(name: str) -> Column:
    """One column."""
    return lambda documents: documents[name].to_numpy(dtype=np.float64)


def minus(first: str, second: str) -> Column:
    """The first column less the second."""
    return lambda documents: (documents[first] - documents[second]).to_numpy(dtype=np.float64)


@dataclass(frozen=True)
class Ratio:
    """Σ numerator / Σ denominator over documents; with `complement`, 1 − that.

    Documents that have no part in it (no counted token, no counted prediction) are no sample.
    """

    numerator: Column
    denominator: Column
    counted: str = "tokens"
    """A document takes part where this column is > 0."""
    complement: bool = False

    def taking_part(self, documents: pd.DataFrame) -> pd.DataFrame:
        """The documents that count."""
        return documents[documents[self.counted] > 0]

    def parts(self, documents: pd.DataFrame) -> tuple[Float[Array, " document"], Float[Array, " document"]]:
        """Numerator and denominator of each document, so that the figure is Σ one / Σ other."""
        below = self.denominator(documents)
        above = self.numerator(documents)
        return (below - above if self.complement else above), below

    def __call__(self, documents: pd.DataFrame, draw: Bootstrap) -> Interval:
        above, below = self.parts(self.taking_part(documents))
        return ratio_interval(above, below, resamples=draw.resamples, seed=draw.seed)
