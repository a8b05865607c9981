"""Inspecting: a text through the model and a dictionary, cut and masked as when it was harvested."""

from collections.abc import Iterator, Sequence

from saeops.activations.windows import (
    Window,
    cut_windows,
    norm_mask,
    pad_windows,
    position_mask,
    prepended,
    window_lengths,
)
from saeops.dictionary.handle import Dictionary
from saeops.dictionary.inspect import Inspected, Reading, inspected
from saeops.errors import ModelMismatch, NonFinite, TextInvalid
from saeops.ports import LanguageModel


def run(text: str, *, dictionary: Dictionary, model: LanguageModel, min_confidence: float | None) -> Inspected:
    """The trusted features that fire on each token of a text.

    Args:
        min_confidence: trusted from here on; None takes the `promote.trusted_confidence` it was built under.

    Raises:
        ModelMismatch: the dictionary was made from another model.
        TextInvalid: the text holds no token, or is not UTF-8.
        NonFinite: the model gives NaN or infinity on it.
    """
    _check_model(dictionary, model)
    policy = dictionary.provenance.policy
    bos = prepended(policy, model.bos_id)
    harvest = dictionary.provenance.params["harvest"]
    windows = cut_windows(0, _ids(text, model), context_size=int(harvest["context_size"]), bos=bos)
    size = int(harvest["batch_windows"])
    return inspected(
        [
            reading
            for start in range(0, len(windows), size)
            for reading in _read(windows[start : start + size], dictionary, model, bos=bos)
        ],
        dictionary.features(min_confidence),
        name=dictionary.name,
        digest=dictionary.digest,
        site=str(dictionary.sites),
        min_confidence=dictionary.trusted_confidence if min_confidence is None else min_confidence,
        policy=policy,
        special_ids=model.special_ids,
        bos=bos,
    )


def _read(
    windows: Sequence[Window], dictionary: Dictionary, model: LanguageModel, *, bos: int | None
) -> Iterator[Reading]:
    """One forward pass over windows, padded on the right."""
    site, policy = dictionary.sites.input, dictionary.provenance.policy
    ids_BW = pad_windows(windows)
    x_BWD = model.capture(ids_BW, [site])[site].cpu()
    counts_BW = position_mask(ids_BW, window_lengths(windows), policy, model.special_ids, bos=bos)
    counts_BW &= norm_mask(x_BWD, dictionary.sae.meta.norm_limit)
    for window, x_WD, counts_W in zip(windows, x_BWD, counts_BW, strict=True):
        x_TD = x_WD[counts_W]
        if not x_TD.isfinite().all():
            raise NonFinite(
                f"the model gives NaN or infinity at {site} on this text",
                hint="model.dtype float32 is the safe one",
            )
        yield Reading(
            window, model.tokens(window.ids), counts_W[: len(window.ids)].tolist(), dictionary.encode(x_TD)
        )


def _ids(text: str, model: LanguageModel) -> list[int]:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextInvalid(f"the text is not UTF-8: {error.reason}", hint="pass it as UTF-8") from error
    ids = model.encode(text)
    if not ids:
        raise TextInvalid("the text holds no token", hint='pass some text: saeops inspect "The cat sat"')
    return ids


def _check_model(dictionary: Dictionary, model: LanguageModel) -> None:
    made_from = dictionary.provenance.model
    if made_from["digest"] != model.identity.digest:
        ref = dictionary.provenance.params.get("model", {}).get("ref", made_from.get("ref", "another model"))
        raise ModelMismatch(
            f"{dictionary.name} was made from {ref} ({made_from['digest'][:12]}),"
            f" the model at hand is {model.identity.ref} ({model.identity.digest[:12]})",
            hint=f"set model.ref to what it was made from: --set model.ref={ref}",
        )
