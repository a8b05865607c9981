"""Inspecting a text: the token policy, the trusted features, the long tail, and what is refused."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from saeops.activations.windows import cut_windows
from saeops.adapters.model_source import resolve_model
from saeops.adapters.models import TransformersModel
from saeops.cli import app
from saeops.dictionary.bundle import Bundle
from saeops.dictionary.handle import Dictionary
from saeops.dictionary.inspect import Inspected
from saeops.errors import ModelMismatch, NameUnknown, NonFinite, TextInvalid
from saeops.params import ModelParams
from saeops.report.inspected import render
from saeops.stages import inspect
from tests.bundles import NAME, tiny_bundle, tiny_params
from tests.tiny import D_MODEL, save_tiny_model

TEXT = "An assignment statement evaluates the expression list and binds the names to it. " * 3
CONTEXT = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder: Path) -> TransformersModel:
    return TransformersModel(resolve_model(ModelParams(ref=str(folder), sha256=None), folder, lambda _: None))


@pytest.fixture(scope="module")
def bundle(model: TransformersModel, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Ten labels of confidence 0 to 0.9, those from 0.3 on trusted."""
    params = tiny_params(
        model={"ref": str(folder), "sha256": None},
        harvest={"sites": ["blocks.1.resid_post"], "context_size": CONTEXT, "batch_windows": 2},
    )
    root = tmp_path_factory.mktemp("bundle")
    return tiny_bundle(root, params=params, width=D_MODEL, model=model.identity.digest)


@pytest.fixture(scope="module")
def dictionary(bundle: Bundle) -> Dictionary:
    return Dictionary(bundle)


def look(text: str, dictionary: Dictionary, model: TransformersModel, least: float | None = None) -> Inspected:
    return inspect.run(text, dictionary=dictionary, model=model, min_confidence=least)


def test_a_text_longer_than_the_context_is_read_in_windows_as_harvested(dictionary, model) -> None:
    found = look(TEXT, dictionary, model)
    windows = cut_windows(0, model.encode(TEXT), context_size=CONTEXT, bos=model.bos_id)
    assert len(windows) > 4
    assert [token.id for token in found.tokens] == [index for window in windows for index in window.ids]
    assert max(token.window for token in found.tokens) == len(windows) - 1
    own = [token for token in found.tokens if token.masked != "prepended"]
    assert "".join(token.text for token in own) == TEXT


def test_each_token_s_features_are_what_encoding_its_activation_gives(dictionary, model) -> None:
    found = look(TEXT, dictionary, model, least=0.0)
    first = [token for token in found.tokens if token.window == 0]
    ids = torch.tensor([[token.id for token in first]])
    site = dictionary.sites.input
    f_WF = dictionary.encode(model.capture(ids, [site])[site][0]).dense()
    for at, token in enumerate(first):
        if token.masked is None:
            assert token.fired == int((f_WF[at] > 0).sum())
            by_latent = {active.feature.latent: active.activation for active in token.features}
            labelled = {latent: float(f_WF[at, latent]) for latent in range(10) if f_WF[at, latent] > 0}
            assert by_latent == pytest.approx(labelled, rel=1e-4)
            assert list(by_latent.values()) == sorted(by_latent.values(), reverse=True)


def test_masked_positions_say_why_and_hold_no_feature(dictionary, model, monkeypatch: pytest.MonkeyPatch) -> None:
    special = look("a statement <eos> list", dictionary, model)
    assert [token.masked for token in special.tokens if token.text == "<eos>"] == ["special"]
    policy = dictionary.provenance.policy.model_copy(update={"skip_positions": 3})
    strict = dictionary.provenance.model_copy(update={"policy": policy})
    monkeypatch.setitem(dictionary._bundle.__dict__, "provenance", strict)
    meta = dictionary.sae.meta.model_copy(update={"norm_limit": 1e-6})
    monkeypatch.setitem(dictionary.__dict__, "sae", dataclasses.replace(dictionary.sae, meta=meta))
    found = look("a statement and a list", dictionary, model)
    assert [token.masked for token in found.tokens][:3] == ["prepended", "position", "position"]
    assert {token.masked for token in found.tokens[3:]} == {"norm"}
    assert found.firings == found.latents_fired == 0


def test_only_trusted_features_are_shown_and_the_rest_is_counted(dictionary, model) -> None:
    found, everything = look(TEXT, dictionary, model), look(TEXT, dictionary, model, least=0.0)
    shown = {active.feature.latent for token in found.tokens for active in token.features}
    assert shown <= set(range(3, 10)), "labels below 0.3 are not trusted"
    assert found.min_confidence == 0.3
    assert found.latents_trusted == len(shown) < everything.latents_trusted
    assert found.latents_fired == everything.latents_fired > everything.latents_trusted
    assert found.firings == everything.firings > everything.firings_trusted > found.firings_trusted > 0
    hidden = found.latents_fired - found.latents_trusted
    assert f"The other {hidden:,}, with {found.firings - found.firings_trusted:,}" in found.long_tail()


def test_activation_is_shown_as_a_share_of_the_latent_s_maximum(dictionary, model) -> None:
    found = look(TEXT, dictionary, model)
    active = next(token.features[0] for token in found.tokens if token.features)
    assert active.share == pytest.approx(active.activation / 10.0)
    silent = dataclasses.replace(active, feature=dataclasses.replace(active.feature, max_activation=0.0))
    assert silent.share is None


@pytest.mark.parametrize(("text", "words"), [("", "no token"), ("caf\udce9", "UTF-8")])
def test_a_text_that_cannot_be_read_is_refused(dictionary, model, text: str, words: str) -> None:
    with pytest.raises(TextInvalid, match=words):
        look(text, dictionary, model)


def test_another_model_is_refused_by_digest(dictionary, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "other", seed=1)
    reads = TransformersModel(resolve_model(ModelParams(ref=str(other), sha256=None), other, lambda _: None))
    with pytest.raises(ModelMismatch, match=reads.identity.digest[:12]):
        look(TEXT, dictionary, reads)


def test_a_model_that_gives_nan_is_refused(dictionary, model) -> None:
    class Sick(TransformersModel):
        def __init__(self) -> None:
            self.__dict__ = dict(model.__dict__)

        def capture(self, ids, sites):
            return {site: x_BWD * float("nan") for site, x_BWD in model.capture(ids, sites).items()}

    with pytest.raises(NonFinite, match=r"blocks\.1"):
        look(TEXT, dictionary, Sick())


def test_the_page_escapes_labels_and_texts(dictionary, model) -> None:
    found = look("<script>window.hurt = 1</script> </body> & a name", dictionary, model, least=0.0)
    evil = "</script><script>window.hurt = 2</script>"
    tokens = tuple(
        dataclasses.replace(
            token,
            features=tuple(
                dataclasses.replace(a, feature=dataclasses.replace(a.feature, label=evil)) for a in token.features
            ),
        )
        for token in found.tokens
    )
    page = render(dataclasses.replace(found, tokens=tokens))
    assert page.count("<script>") == 1, "the page's own"
    assert page.count("</script>") == 2
    assert "window.hurt" in page


def test_a_text_on_which_nothing_trusted_fires_is_shown_as_such(dictionary, model) -> None:
    found = look(TEXT, dictionary, model, least=0.95)
    assert found.latents_trusted == found.firings_trusted == 0
    page = render(found)
    assert "No trusted feature fires on this text." in page
    assert page.count('class="lit"') == 2, "the key alone"


# ── the verb ────────────────────────────────────────────────────────────────


@pytest.fixture
def run(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`saeops inspect` in a checkout that reads the tiny model and has no champion."""
    params = {"name": NAME, "model": {"ref": str(folder), "sha256": None}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.setenv("SAEOPS_TRACKING", "none")
    monkeypatch.setenv("SAEOPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SAEOPS_STORE", raising=False)
    return lambda *arguments: CliRunner().invoke(app, ["inspect", *arguments, "--root", str(tmp_path)])


def test_the_verb_shows_tokens_in_order_and_what_is_left_out(run, bundle: Bundle, tmp_path: Path) -> None:
    page = tmp_path / "out" / "page.html"
    said = run("an [bold] statement", "--dictionary", str(bundle.path), "--html", str(page), "--top", "1")
    assert said.exit_code == 0, said.output
    lines = said.stdout.splitlines()
    assert lines[0].startswith(f"{NAME}  {bundle.digest[:12]}")
    assert "masked: put before the window" in said.stdout
    assert (
        "".join(line.split()[0] for line in lines[3:] if line[:1].strip()).replace("·", "").startswith("<bos>an[b")
    )
    assert "more trusted" in said.stdout
    assert "are not shown" in " ".join(said.stdout.split())
    assert page.read_text().startswith("<!doctype html>")


def test_the_verb_speaks_json_with_the_strongest_features_of_each_token(run, bundle: Bundle) -> None:
    arguments = ("a statement", "--dictionary", str(bundle.path), "--min-confidence", "0", "--top", "1", "--json")
    found = json.loads(run(*arguments).stdout)
    assert "".join(token["text"] for token in found["tokens"]) == "<bos>a statement"
    assert {len(token["features"]) for token in found["tokens"]} == {0, 1}
    assert sum(token["trusted"] for token in found["tokens"]) == found["firings_trusted"]
    assert (found["digest"], found["min_confidence"]) == (bundle.digest, 0)


def test_without_a_champion_the_verb_says_so(run) -> None:
    error = run("a statement").exception
    assert isinstance(error, NameUnknown)
    assert f"{NAME} has no champion" in str(error)
    assert "promote" in error.hint
