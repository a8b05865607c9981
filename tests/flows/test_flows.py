"""Order, failures, retries and endings of the flows, on services that do what a script says."""

from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from flows.__main__ import app
from flows.build import build
from flows.promote import WAITING, promote, waits_for_review
from saeops.cli import one_clear_error
from saeops.errors import (
    CorpusTooSmall,
    DiskFull,
    EndpointUnavailable,
    GateRefused,
    LostRace,
    ModelUnavailable,
    NonFinite,
    SaeopsError,
)
from saeops.params import Selection, load_params, read_selection
from saeops.promotion.verdict import GateOutcome
from tasks.checkout import Checkout
from tasks.label import label
from tasks.train import train
from tests.flows.fakes import scripted, sealed_folder, verdict_of

pytestmark = pytest.mark.usefixtures("prefect_api")

STAGES = ["harvest", "train", "controls", "diagnose", "label", "bench", "bundle"]
REVIEW_OPEN: dict[str, GateOutcome] = {
    "explained_variance": "pass",
    "review": "inconclusive",
    "review_acceptance": "inconclusive",
}


def test_build_runs_every_stage_in_order_and_records_its_profile(root: Path) -> None:
    selection = Selection(set=("train.k=16",))
    with scripted(root) as services:
        state = build(root, selection, return_state=True)
    assert state.is_completed()
    assert services.called == [*STAGES, "keep recipe", "candidate", "judge", "report", "promote"]
    assert services.data_versions.asked == ["commit", "push"]
    bundle = sealed_folder(services.space.bundle)
    assert services.projection.aliases("smollm2-135m/blocks.10.resid_post") == {"candidate": bundle.digest}
    assert read_selection(root) == selection


def test_where_only_review_is_missing_build_waits_and_says_what_to_type(root: Path) -> None:
    with scripted(root, gates=REVIEW_OPEN) as services:
        state = build(root, Selection(), return_state=True)
    assert state.name == WAITING
    assert state.is_completed()
    assert "saeops review queue" in state.message
    assert "python -m flows promote" in state.message
    assert "promote" not in services.called


def test_promote_goes_on_from_waiting(root: Path) -> None:
    with scripted(root, gates=REVIEW_OPEN) as services:
        build(root, Selection(), return_state=True)
        services.gates = {"review": "pass"}
        services.called.clear()
        state = promote(root, return_state=True)
    assert state.is_completed()
    assert services.called == ["candidate", "judge", "report", "promote"]


def test_a_forced_promotion_does_not_wait(root: Path) -> None:
    with scripted(root, gates=REVIEW_OPEN) as services:
        promote(root, force=True, reason="demo", return_state=True)
    assert services.called[-1] == "promote"


@pytest.mark.parametrize(
    ("gates", "waits"),
    [
        ({"review": "inconclusive"}, True),
        (REVIEW_OPEN, True),
        ({"review": "pass", "explained_variance": "pass"}, False),
        ({"review": "pass", "review_acceptance": "inconclusive"}, False),
        ({"review": "inconclusive", "explained_variance": "inconclusive"}, False),
        ({"review": "inconclusive", "explained_variance": "fail"}, False),
    ],
)
def test_a_flow_waits_only_for_what_people_can_give(gates: dict[str, GateOutcome], waits: bool) -> None:
    assert waits_for_review(verdict_of(gates)) is waits


def test_a_failing_stage_fails_the_flow_and_nothing_follows(root: Path) -> None:
    with scripted(root, failures={"train": [NonFinite("NaN in the loss")]}) as services:
        state = build(root, Selection(), return_state=True)
    assert state.is_failed()
    assert isinstance(state.result(raise_on_failure=False), NonFinite)
    assert services.called == ["harvest", "train"]
    assert services.data_versions.asked == []


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (EndpointUnavailable("slow"), 3),
        (CorpusTooSmall("three documents"), 1),
        (DiskFull("no room"), 1),
        (ValueError("a bug"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_what_may_answer_later_is_asked_again(root: Path, error: Exception, calls: int, capsys: Any) -> None:
    eager = label.with_options(retry_delay_seconds=0)

    @flow
    def one_task() -> Any:
        checkout = Checkout(root, load_params(root))
        return eager(checkout, sealed_folder(root / "artifacts" / "catalog"))

    with scripted(root, failures={"label": [error, error]}) as services:
        state = one_task(return_state=True)
    assert services.called == ["label"] * calls
    assert state.is_completed() == (calls == 3)
    assert capsys.readouterr().err.count("label: slow; trying again") == calls - 1


def test_a_folder_replaced_by_another_build_is_noticed(root: Path) -> None:
    @flow
    def one_task() -> Any:
        activations = sealed_folder(root / "artifacts" / "activations")
        sealed_folder(root / "artifacts" / "activations", "of another build")
        return train(Checkout(root, load_params(root)), activations)

    with scripted(root) as services:
        state = one_task(return_state=True)
    assert isinstance(state.result(raise_on_failure=False), LostRace)
    assert services.called == []


@pytest.mark.parametrize("error", [ModelUnavailable("no such model"), GateRefused("it failed")])
def test_the_command_ends_with_the_errors_own_exit_code(
    root: Path, error: SaeopsError, prefect_api: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)

    def command() -> None:
        with one_clear_error():
            app(["build", "--root", str(root)], standalone_mode=False)

    with scripted(root, failures={"harvest": [error]}), pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == error.exit_code
    assert error.message in capsys.readouterr().err


def test_the_command_prints_the_summary_and_the_next_commands(
    root: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    with scripted(root, gates=REVIEW_OPEN):
        app(["build", "--root", str(root)], standalone_mode=False)
    said = capsys.readouterr().out
    assert said.index("the summary") < said.index("saeops review queue")


def test_a_fault_in_params_is_told_before_anything_starts(root: Path, capsys: Any) -> None:
    def command() -> None:
        with one_clear_error():
            app(["build", "--root", str(root), "--set", "train.k=nonsense"], standalone_mode=False)

    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 2
    assert "train.k" in capsys.readouterr().err
    assert not (root / "profile.yaml").exists()
    assert not (root / "var").exists()
