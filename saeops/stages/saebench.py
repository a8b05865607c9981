"""Exporting results: a bundle's diagnostics as SAEBench keeps those of its `core` evaluation."""

from pathlib import Path

import pandas as pd

from saeops.diagnostics import schema
from saeops.dictionary.bundle import Bundle
from saeops.dictionary.saebench import Evidence, core_output
from saeops.errors import FormatUnknown, UsageError
from saeops.files import write_atomic
from saeops.metrics import read_metrics
from saeops.sae.canonical import Sae
from saeops.sae.formats.names import Results
from saeops.stages.foreign import Exported
from saeops.tables import read_table


def run(bundle: Bundle, folder: Path, *, force: bool, epoch_millis: int) -> Exported:
    """Write `<name>_<digest>_eval_results.json`.

    Args:
        folder: made if it is not there.
        force: replace a file of that name.

    Raises:
        ForeignFormat: the bundle holds a transcoder.
        FormatUnknown: its diagnostics are older than the tables that this needs.
        UsageError: a file stands in the way.
    """
    path = folder / f"{bundle.provenance.name.replace('/', '_')}_{bundle.digest[:12]}_eval_results.json"
    if path.exists() and not force:
        raise UsageError(f"already there: {path}", hint="--force replaces it; or choose another --to")
    write_atomic(path, core_output(evidence(bundle), epoch_millis=epoch_millis).to_bytes())
    return Exported(Results.SAEBENCH, folder, (path.name,))


def evidence(bundle: Bundle) -> Evidence:
    """What an export reads of a verified bundle."""
    diagnostics = bundle.path / "diagnostics"
    if not (diagnostics / schema.DOCUMENTS).exists():
        raise FormatUnknown(
            f"bundle {bundle.digest[:12]} has no diagnostics/{schema.DOCUMENTS}: an older saeops made it",
            hint="run `saeops diagnose` and `saeops bundle` again",
        )
    latents = pd.read_parquet(diagnostics / schema.LATENTS, columns=["latent", "density"]).sort_values("latent")
    return Evidence(
        digest=bundle.digest,
        provenance=bundle.provenance,
        sae=Sae.load(bundle.path / "sae"),
        metrics=read_metrics(diagnostics / schema.METRICS_FILE),
        documents=read_table(diagnostics / schema.DOCUMENTS, schema.EvalDocumentTable),
        density_F=latents["density"].to_numpy(dtype="float64"),
    )
