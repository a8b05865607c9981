"""Flow: from documents to a judged candidate, and on to champion where no review waits."""

from pathlib import Path

from prefect import State, flow

from flows.promote import finish
from flows.work import at_work
from saeops.params import Selection, load_params, write_selection
from tasks.bench import bench
from tasks.bundle import bundle
from tasks.controls import controls
from tasks.diagnose import diagnose
from tasks.harvest import harvest
from tasks.label import label
from tasks.train import train
from tasks.versions import version_data


@flow(name="build", flow_run_name="build {selection.profile}", validate_parameters=False)
def build(root: Path, selection: Selection) -> State[None]:
    """Build, version, judge and announce; then promote, or wait for the people who review.

    Ends `Promoted`, `Kept` (it is champion already) or `WaitingForReview`; fails
    with GateRefused where the judge does not pass it.
    """
    params = load_params(root, selection)
    write_selection(root, selection)
    with at_work("build", root, params) as checkout:
        activations = harvest(checkout)
        sae = train(checkout, activations)
        beside = controls(checkout, activations)
        measured = diagnose(checkout, sae, beside)
        labels = label(checkout, measured.catalog)
        effects = bench(checkout, labels)
        bundle(checkout, labels, effects)
        version_data(checkout)
        return finish(checkout)
