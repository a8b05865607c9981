"""Flow: from documents to a judged candidate, and on to champion where no review waits."""

from collections.abc import Callable
from pathlib import Path

from prefect import State, flow

from flows.promote import finish
from flows.work import at_work
from saeops.params import Selection, load_params, write_selection
from saeops.refs import Ref
from tasks.bench import bench
from tasks.bundle import bundle
from tasks.checkout import Checkout
from tasks.controls import controls
from tasks.diagnose import diagnose
from tasks.harvest import harvest
from tasks.label import Earlier, label
from tasks.train import train
from tasks.versions import version_data

Step = Callable[[str], None]
"""Told what comes next."""


@flow(name="build", flow_run_name="build {selection.profile}", validate_parameters=False)
def build(root: Path, selection: Selection) -> State[None]:
    """Build, version, judge and announce; then promote, or wait for the people who review.

    Ends `Promoted`, `Kept` (it is champion already) or `WaitingForReview`; fails
    with GateRefused where the judge does not pass it.
    """
    params = load_params(root, selection)
    write_selection(root, selection)
    with at_work("build", root, params) as checkout:
        make(checkout)
        return finish(checkout)


def make(checkout: Checkout, step: Step = lambda _: None, *, earlier: Earlier | None = None) -> Ref:
    """Every stage in order, each kept where it is done already; the bundle, versioned.

    Args:
        earlier: a dictionary whose labels are carried over.
    """
    step("harvest")
    activations = harvest(checkout)
    step("train")
    sae = train(checkout, activations)
    step("controls")
    beside = controls(checkout, activations)
    step("diagnose")
    measured = diagnose(checkout, sae, beside)
    step("label")
    labels = label(checkout, measured.catalog, earlier)
    step("bench")
    effects = bench(checkout, labels)
    step("bundle")
    made = bundle(checkout, labels, effects)
    version_data(checkout)
    return made
