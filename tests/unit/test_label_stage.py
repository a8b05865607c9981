"""The label stage on a tiny real model: right, repeatable, killable, honest about its nulls."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from saeops.activations.reader import ActivationSet
from saeops.adapters.llm import InProcess, OpenAiCompatible, ScriptedLlm
from saeops.adapters.models import TransformersModel, load_model
from saeops.digests import digest_json
from saeops.errors import EndpointUnavailable, ModelMismatch, StageMissing
from saeops.labelling.labels import PATTERN
from saeops.labelling.material import Material
from saeops.labelling.metrics import METRICS
from saeops.labelling.schema import KIND, METRICS_FILE, TABLE, LabelTable
from saeops.metrics import read_metrics
from saeops.params import ModelParams, Params
from saeops.ports import Llm
from saeops.refs import Workspace
from saeops.sae.canonical import Sae
from saeops.sealed import verify
from saeops.stages import label, train
from saeops.tables import read_table
from tests.diagnosing import without_controls
from tests.endpoint import Reply, endpoint
from tests.tiny import RecordingWatch, save_tiny_model, tiny_params

N_LLM = 4


@pytest.fixture(scope="module")
def params(tiny_corpus: Path) -> Params:
    return tiny_params(corpus={"path": str(tiny_corpus)}, label={"llm_latents": N_LLM})


@pytest.fixture(scope="module")
def catalogued(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_activations: ActivationSet,
    tiny_model: TransformersModel,
    params: Params,
) -> Workspace:
    """A workspace with activations, an SAE and its catalog."""
    space = Workspace(root=tmp_path_factory.mktemp("catalogued"))
    shutil.copytree(tiny_activations.sealed.path, space.activations)
    train.run(params, space, watch=RecordingWatch())
    without_controls(params, space, tiny_model)
    return space


@pytest.fixture
def space(tmp_path: Path, catalogued: Workspace) -> Workspace:
    """The same inputs in a workspace of its own, nothing labelled."""
    fresh = Workspace(root=tmp_path)
    for name in ("activations", "sae", "catalog"):
        shutil.copytree(getattr(catalogued, name), getattr(fresh, name))
    return fresh


def scripted(name: str = "script") -> ScriptedLlm:
    return ScriptedLlm(answer, name=name)


def answer(prompt: str) -> str:
    """Labels that differ by latent, and a judge that looks for an e in the marked word."""
    if "Label:" in prompt:
        return f"Label: words with an e, as in {digest_json(prompt)[:8]}"
    lines = [line for line in prompt.splitlines() if "«" in line and line[0].isdigit()]
    return json.dumps([int("e" in line.split("«")[1]) for line in lines])


def labelled(space: Workspace, params: Params, model: TransformersModel, llm: Llm | None) -> pd.DataFrame:
    label.run(params, space, model=model, llm=llm, watch=RecordingWatch())
    return read_table(space.labels / TABLE, LabelTable)


def test_labels_are_made_tested_and_sealed(
    space: Workspace, params: Params, tiny_model: TransformersModel
) -> None:
    watch = RecordingWatch()
    ref = label.run(params, space, model=tiny_model, llm=scripted(), watch=watch)
    sealed = verify(space.labels, kind=KIND)
    assert ref.digest == sealed.digest
    assert ref.path == space.labels
    table = read_table(space.labels / TABLE, LabelTable)
    summary = sealed.summary
    assert Counter(table["labeller"]) == {PATTERN: summary["drawn"], "llm:script": N_LLM}
    assert summary["drawn"] == min(params.label.latents, summary["living"])
    assert table["chosen"].sum() == summary["drawn"]
    assert 0 < summary["scored"] <= summary["labelled"] <= summary["drawn"]
    assert (table.loc[table["n_positive"] < params.label.min_positives, "confidence"] == 0).all()
    llms = table[table["labeller"] != PATTERN]
    assert (llms["n_positive"] <= params.label.positives).all()
    assert (llms["asked"] == 1 + llms["n_positive"] + llms["n_negative"] + llms["n_hard"]).all()
    metrics = read_metrics(space.labels / METRICS_FILE)
    assert metrics.keys() == METRICS.keys()
    assert metrics["label_parse_failure_rate"].point == 0
    assert metrics["label_confidence"].point == pytest.approx(table.loc[table["chosen"], "confidence"].mean())
    assert metrics["label_confidence"].n == summary["drawn"]
    assert watch.advanced >= summary["drawn"] + N_LLM
    assert f"of {summary['living']} living latents drawn at random" in watch.said[-1]
    assert not list(space.root.glob("artifacts/.work/*"))


def test_no_document_both_explains_and_scores(
    space: Workspace, params: Params, tiny_model: TransformersModel
) -> None:
    acts, sae = ActivationSet.open(space.activations), Sae.load(space.sae)
    contexts = pd.read_parquet(space.catalog / "contexts.parquet")
    latents = sorted(contexts["latent"].unique().tolist())
    material = Material.read(acts, sae, contexts, latents, spell=tiny_model.tokens, config=params.label, seed=0)
    split = acts.documents.set_index("document")["split"]
    for latent in latents:
        examples, test = material.examples(latent), material.test_set(latent, factor=10)
        explaining = {context.document for context in examples.contexts}
        explaining |= {snippet.document for snippet in examples.calibration.snippets}
        scoring = {snippet.document for snippet in test.snippets}
        assert explaining
        assert {split[document] for document in explaining} == {"explain"}
        assert {split[document] for document in scoring} <= {"score"}
    assert len(material.history.word) == acts.count(sae.meta.site, "explain")
    assert {split[document] for document in material.explain.document} == {"explain"}


def test_what_is_counted_is_what_the_sae_does(
    space: Workspace, params: Params, tiny_model: TransformersModel
) -> None:
    """Firings and base rates against a dense encoding of the score split."""
    acts, sae = ActivationSet.open(space.activations), Sae.load(space.sae)
    contexts = pd.read_parquet(space.catalog / "contexts.parquet")
    latents = sorted(contexts["latent"].unique().tolist())
    material = Material.read(acts, sae, contexts, latents, spell=tiny_model.tokens, config=params.label, seed=0)
    dense = [sae.encode(b.activations).dense() > 0 for b in acts.batches(sae.meta.site, "score", 999)]
    where = [(int(d), int(p)) for b in acts.batches(sae.meta.site, "score", 999)
             for d, p in zip(b.document, b.position, strict=True)]  # fmt: skip
    for latent in latents[:10]:
        firing = [bool(x) for part in dense for x in part[:, latent]]
        test = material.test_set(latent)
        assert test.base_rate == pytest.approx(sum(firing) / len(firing))
        truth = dict(zip(where, firing, strict=True))
        assert all(truth[s.document, s.position] == s.fires for s in test.snippets)


def test_the_same_inputs_give_the_same_bytes(
    space: Workspace, catalogued: Workspace, tmp_path: Path, params: Params, tiny_model: TransformersModel
) -> None:
    first = label.run(params, space, model=tiny_model, llm=InProcess(tiny_model), watch=RecordingWatch())
    other = Workspace(root=tmp_path / "elsewhere")
    for name in ("activations", "sae", "catalog"):
        shutil.copytree(getattr(catalogued, name), getattr(other, name))
    second = label.run(params, other, model=tiny_model, llm=InProcess(tiny_model), watch=RecordingWatch())
    assert first.digest == second.digest
    llm = scripted()
    again = label.run(params, space, model=tiny_model, llm=InProcess(tiny_model), watch=RecordingWatch())
    assert again.digest == first.digest
    assert llm.asked == []


def test_finished_labels_are_kept_without_asking_again(
    space: Workspace, params: Params, tiny_model: TransformersModel
) -> None:
    label.run(params, space, model=tiny_model, llm=scripted(), watch=RecordingWatch())
    llm = scripted()
    label.run(params, space, model=tiny_model, llm=llm, watch=RecordingWatch())
    assert llm.asked == []


def test_without_an_llm_there_are_patterns_only(
    space: Workspace, params: Params, tiny_model: TransformersModel
) -> None:
    table = labelled(space, params, tiny_model, None)
    assert set(table["labeller"]) == {PATTERN}
    assert table["chosen"].all()
    rate = read_metrics(space.labels / METRICS_FILE)["label_parse_failure_rate"]
    assert rate.n == 0


class Broken(ScriptedLlm):
    """Goes away after some prompts."""

    def __init__(self, after: int) -> None:
        super().__init__(answer)
        self.after = after

    def ask(self, prompts: Any, **choices: Any) -> list[str]:
        if len(self.asked) + len(prompts) > self.after:
            raise EndpointUnavailable("http://x is down", hint="start it")
        return super().ask(prompts, **choices)


def test_when_the_endpoint_goes_away_finished_labels_are_kept_and_never_asked_for_again(
    space: Workspace, params: Params, tiny_model: TransformersModel
) -> None:
    broken = Broken(after=12)
    with pytest.raises(EndpointUnavailable):
        label.run(params, space, model=tiny_model, llm=broken, watch=RecordingWatch())
    assert not space.labels.exists()
    assert broken.asked
    healed = scripted()
    resumed = label.run(params, space, model=tiny_model, llm=healed, watch=RecordingWatch())
    assert not set(healed.asked) & set(broken.asked)
    shutil.rmtree(space.labels)
    unbroken = label.run(params, space, model=tiny_model, llm=scripted(), watch=RecordingWatch())
    assert resumed.digest == unbroken.digest


def test_answers_that_cannot_be_read_are_counted_and_never_shown(
    space: Workspace, params: Params, tiny_model: TransformersModel
) -> None:
    def mostly_good(prompt: str) -> str:
        lost = "Label:" not in prompt and digest_json(prompt)[0] in "4567"
        return "who knows" if lost else answer(prompt)

    table = labelled(space, params, tiny_model, ScriptedLlm(mostly_good))
    llms = table[table["labeller"] != PATTERN]
    assert llms["parse_failures"].sum() > 0
    read = llms["n_positive"] + llms["n_negative"] + llms["n_hard"]
    assert (llms["asked"] == 1 + read + llms["parse_failures"]).all()
    rate = read_metrics(space.labels / METRICS_FILE)["label_parse_failure_rate"]
    assert rate.point == pytest.approx(llms["parse_failures"].sum() / llms["asked"].sum())


def test_an_llm_that_talks_nonsense_is_stopped_with_one_clear_error(
    space: Workspace, params: Params, tiny_model: TransformersModel
) -> None:
    babbling = ScriptedLlm(lambda p: answer(p) if "Label:" in p else "lorem ipsum")
    with pytest.raises(EndpointUnavailable, match=r"nonsense: 1\d of its first 20") as error:
        label.run(params, space, model=tiny_model, llm=babbling, watch=RecordingWatch())
    assert "label.llm_latents=0" in error.value.hint
    assert not space.labels.exists()
    # Mended, it is asked afresh: nothing of the nonsense stays.
    table = labelled(space, params, tiny_model, scripted())
    assert table["parse_failures"].sum() == 0


def test_shuffled_labels_are_reported_beside_the_real_ones(
    space: Workspace, params: Params, tiny_model: TransformersModel
) -> None:
    label.run(params, space, model=tiny_model, llm=scripted(), watch=RecordingWatch())
    metrics = read_metrics(space.labels / METRICS_FILE)
    null, real = metrics["label_shuffled_confidence"], metrics["label_confidence"]
    assert null.n >= 8
    assert null.point < real.point / 2
    assert verify(space.labels, kind=KIND).summary["shuffled_confidence"] == null.point


def test_what_does_not_belong_together_is_refused(
    space: Workspace, params: Params, tiny_model: TransformersModel, tmp_path: Path
) -> None:
    stranger = load_model(ModelParams(ref=str(save_tiny_model(tmp_path / "other", seed=9))), Path("unused"))
    with pytest.raises(ModelMismatch):
        label.run(params, space, model=stranger, llm=None, watch=RecordingWatch())
    shutil.rmtree(space.catalog)
    with pytest.raises(StageMissing, match="catalog"):
        label.run(params, space, model=tiny_model, llm=None, watch=RecordingWatch())


LABEL = """
import sys
from pathlib import Path
from saeops.adapters.llm import OpenAiCompatible
from saeops.adapters.models import load_model
from saeops.params import ModelParams, Params
from saeops.refs import Workspace
from saeops.stages import label
from tests.tiny import RecordingWatch

params = Params.model_validate_json(Path(sys.argv[2]).read_text())
model = load_model(ModelParams(ref=sys.argv[3], device="cpu"), Path("unused"))
llm = OpenAiCompatible(params.label.llm)
label.run(params, Workspace(root=Path(sys.argv[1])), model=model, llm=llm, watch=RecordingWatch())
"""


@pytest.mark.slow
def test_a_killed_labelling_goes_on_and_asks_for_nothing_twice(
    space: Workspace,
    catalogued: Workspace,
    tmp_path: Path,
    tiny_model_folder: Path,
    tiny_model: TransformersModel,
    params: Params,
) -> None:
    """SIGKILL while the second group's answers are coming; a real endpoint counts what it is asked."""
    asked: list[str] = []

    def reply(request: dict[str, Any], before: int) -> Reply:
        prompt = request["messages"][-1]["content"]
        asked.append(prompt)
        said = Reply.saying(answer(prompt))
        said.after_s = 60 if hold and before >= 14 else 0
        return said

    with endpoint(reply) as at:
        hold = True
        llm_params = {"backend": "openai", "model": "some-model", "base_url": at.url}
        chosen = params.model_copy(
            update={"label": type(params.label).model_validate(params.label.model_dump() | {"llm": llm_params})}
        )
        (tmp_path / "params.json").write_text(chosen.model_dump_json())
        command = [
            sys.executable,
            "-c",
            LABEL,
            str(space.root),
            str(tmp_path / "params.json"),
            str(tiny_model_folder),
        ]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        victim = subprocess.Popen(command, env=environment, start_new_session=True)
        deadline = time.monotonic() + 120
        while len(asked) < 15:
            assert victim.poll() is None, "labelling ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(victim.pid, signal.SIGKILL)
        victim.wait()
        (progress,) = space.root.glob("artifacts/.work/label-*/progress.jsonl")
        answered = [line for line in progress.read_text().splitlines() if '"llm:some-model"' in line]
        assert answered
        assert not space.labels.exists()
        with progress.open("a") as file:
            file.write('{"labeller": "llm:some-model", "latent": 1, "lab')  # cut short by the kill
        hold, finished = False, set(asked[:14])
        asked.clear()
        subprocess.run(command, env=environment, check=True)
        assert not finished & set(asked)
        assert len(asked) == len(set(asked))
        unbroken = Workspace(root=tmp_path / "unbroken")
        for name in ("activations", "sae", "catalog"):
            shutil.copytree(getattr(catalogued, name), getattr(unbroken, name))
        llm = OpenAiCompatible(chosen.label.llm)
        whole = label.run(chosen, unbroken, model=tiny_model, llm=llm, watch=RecordingWatch())
    assert verify(space.labels, kind=KIND).digest == whole.digest


def test_a_weak_model_in_process_is_heard_to_the_end(
    space: Workspace, params: Params, tiny_model: TransformersModel
) -> None:
    """A random model writes no label at all: that is counted, and stops nobody."""
    many = params.model_copy(update={"label": params.label.model_copy(update={"llm_latents": 12})})
    table = labelled(space, many, tiny_model, InProcess(tiny_model))
    llms = table[table["labeller"] != PATTERN]
    assert len(llms) == 12
    assert (llms["text"].isna() == (llms["parse_failures"] == 1)).all()
    assert llms.loc[llms["text"].isna(), "confidence"].eq(0).all()
