"""The tables of known concepts: docs/formats/diagnostics.md."""

import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from saeops.diagnostics.concepts.rules import NAMES
from saeops.diagnostics.concepts.words import LETTERS

CONCEPTS = "concepts.parquet"
LETTERS_FILE = "letters.parquet"


class ConceptTable(pa.DataFrameModel):
    """One row a concept. Losses in nats a token; lists have a number an eval document, 0 where it is not read."""

    concept: Series[str] = pa.Field(isin=list(NAMES), unique=True)
    meaning: Series[str]
    tokens: Series[pa.Int64] = pa.Field(ge=0)
    """Eval tokens looked at."""
    positives: Series[pa.Int64] = pa.Field(ge=0)
    """Those on which the concept holds."""
    measured: Series[pa.Bool]
    """False: too rare, or too common, in the explain or the eval sample; what follows is null then."""
    latent: Series[pd.Int32Dtype] = pa.Field(ge=0, nullable=True)
    """Chosen on explain documents."""
    weight: Series[pa.Float64] = pa.Field(nullable=True)
    """Of its activation in the probe; negative where its silence tells."""
    fit_loss: Series[pa.Float64] = pa.Field(ge=0, nullable=True)
    """On the explain documents."""
    loss: Series[pa.Float64] = pa.Field(ge=0, nullable=True)
    """On the eval documents."""
    entropy: Series[pa.Float64] = pa.Field(ge=0, nullable=True)
    """Loss of the best constant on the eval documents."""
    shuffled_loss: Series[pa.Float64] = pa.Field(ge=0, nullable=True)
    """The loss of the same procedure on labels moved along the text."""
    auc: Series[pa.Float64] = pa.Field(ge=0, le=1, nullable=True)
    """Chance that the probe puts a positive above a negative."""
    f1: Series[pa.Float64] = pa.Field(ge=0, le=1, nullable=True)
    """Of the latent's firing as a sign of the concept."""
    document_tokens: Series[object]
    document_positives: Series[object]
    document_loss: Series[object]
    """Σ of the eval loss; empty where not measured."""

    class Config:
        strict = True


class LetterTable(pa.DataFrameModel):
    """One row a first letter. Lists have one number an eval document, and are empty where not measured."""

    letter: Series[str] = pa.Field(isin=list(LETTERS), unique=True)
    measured: Series[pa.Bool]
    """False: weak probe, too few words, or no latent that stands for the letter."""
    probe_words: Series[pa.Int64] = pa.Field(ge=0)
    """Train words the probe learnt from."""
    probe_f1: Series[pa.Float64] = pa.Field(ge=0, le=1)
    """Of the probe on eval words it never saw."""
    words: Series[pa.Int64] = pa.Field(ge=0)
    """Eval words that begin with the letter."""
    right: Series[pa.Int64] = pa.Field(ge=0)
    """Those on which the probe says so."""
    main_latents: Series[object]
    main_f1: Series[pa.Float64] = pa.Field(ge=0, le=1, nullable=True)
    """Of "a main latent fires" as a sign of the letter, on explain words."""
    main_fires: Series[pa.Int64] = pa.Field(ge=0)
    """Right words on which a main latent fires."""
    absorbed: Series[pa.Int64] = pa.Field(ge=0)
    """Right words that one other latent absorbs wholly."""
    rate: Series[pa.Float64] = pa.Field(ge=0, le=1, nullable=True)
    """absorbed / right, with Wilson's interval."""
    low: Series[pa.Float64] = pa.Field(ge=0, le=1, nullable=True)
    high: Series[pa.Float64] = pa.Field(ge=0, le=1, nullable=True)
    fraction: Series[pa.Float64] = pa.Field(ge=0, le=1, nullable=True)
    """Mean share of the letter that other latents carry, over right words."""
    document_right: Series[object]
    document_absorbed: Series[object]
    document_fraction: Series[object]
    """Σ of the share."""

    class Config:
        strict = True
