"""The nulls: what the same measurement gives where there is nothing to find."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from saeops.diagnostics.measure import Held, Measured, Predict, linear_null, reconstructed, train_sample
from saeops.diagnostics.metrics import BY_DOCUMENT
from saeops.diagnostics.splicing import document_frame
from saeops.metrics import measure_all
from saeops.ports import LanguageModel
from saeops.sae.random_dictionary import random_dictionary
from saeops.stages.controls import ControlModel, Controls
from saeops.stages.examine import Examined, Subject, examine, known_of, spliced, within
from saeops.stats import Interval

PCA, RANDOM_DICTIONARY, RANDOM_MODEL = "pca", "random_dictionary", "random_model"
SAE = "sae"

Nulls = dict[str, Mapping[str, Interval]]


def examine_beside_nulls(
    subject: Subject, controls: Controls, *, random_model: Callable[[], LanguageModel]
) -> tuple[Examined, Nulls]:
    """The dictionary's own figures, and by null those of what it must beat.

    Args:
        random_model: gives the model that `controls.random_model` read, where there is one.
    """
    held, known = Held.open(subject.acts, subject.sae.meta.sites), known_of(subject)
    measured = within(subject, held)
    rank = mean_l0(measured)
    pca = linear_null(subject.acts, held.sites, rank, seed=subject.params.seed)
    untrained = _untrained(subject)
    reconstructions: dict[str, Predict] = {
        SAE: subject.sae.reconstruct,
        PCA: pca,
        RANDOM_DICTIONARY: untrained.sae.reconstruct,
    }
    sums = spliced(subject, held, reconstructions)
    own = examine(subject, known, measured, sums, SAE, seeds=controls.seeds)
    dense = document_frame(subject.acts, reconstructed(held, pca, rank=rank), sums, PCA)
    null = examine(untrained, known, within(untrained, held), sums, RANDOM_DICTIONARY, seeds=controls.seeds)
    nulls: Nulls = {
        **own.nulls,
        PCA: measure_all(BY_DOCUMENT, dense, subject.draw),
        RANDOM_DICTIONARY: null.metrics,
    }
    if controls.random_model is not None:
        nulls[RANDOM_MODEL] = _of_random_model(subject, controls.random_model, random_model()).metrics
    return own, nulls


def mean_l0(measured: Measured) -> int:
    """Mean L0, rounded: the rank of a dense code with as many numbers a token."""
    return round(float(measured.documents["fired"].sum() / measured.documents["tokens"].sum()))


def _untrained(subject: Subject) -> Subject:
    """The same with a random dictionary."""
    seed, sites = subject.params.seed, subject.sae.meta.sites
    x_TD, y_TE = train_sample(subject.acts, sites, seed=seed)
    return replace(subject, sae=random_dictionary(subject.sae, x_TD, y_TE, seed=seed))


def _of_random_model(subject: Subject, control: ControlModel, model: LanguageModel) -> Examined:
    """The SAE of the model with random weights, on that model and what it read."""
    other = replace(subject, acts=control.acts, sae=control.sae, model=model)
    held = Held.open(other.acts, other.sae.meta.sites)
    sums = spliced(other, held, {SAE: other.sae.reconstruct})
    return examine(other, known_of(other), within(other, held), sums, SAE)
