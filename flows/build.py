"""Flow: from documents to a judged candidate, and on to champion where no review waits."""

from collections.abc import Sequence
from pathlib import Path

from prefect import State, flow

from flows.promote import finish
from flows.work import at_work
from saeops.params import choose_selection, load_params, write_selection
from tasks.bench import bench
from tasks.bundle import bundle
from tasks.diagnose import diagnose
from tasks.harvest import harvest
from tasks.label import label
from tasks.train import train
from tasks.versions import version_data


@flow(name="build", flow_run_name="build {profile}", validate_parameters=False)
def build(root: Path = Path(), profile: str | None = None, overrides: Sequence[str] = ()) -> State[None]:
    """Build, version, judge and announce; then promote, or wait for the people who review.

    Ends `Promoted`, `Kept` (it is champion already) or `WaitingForReview`; fails
    with GateRefused where the judge does not pass it.
    """
    selection = choose_selection(root, profile, overrides)
    params = load_params(root, selection)
    write_selection(root, selection)
    with at_work("build", root, params) as checkout:
        activations = harvest(checkout)
        sae = train(checkout, activations)
        measured = diagnose(checkout, sae)
        labels = label(checkout, measured.catalog)
        effects = bench(checkout, labels)
        bundle(checkout, labels, effects)
        version_data(checkout)
        return finish(checkout)
