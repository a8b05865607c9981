"""Comparing: two dictionaries by reference, side by side."""

from pathlib import Path

from saeops.diagnostics import schema
from saeops.dictionary.bundle import Bundle
from saeops.dictionary.compare import RESAMPLES, Comparison, Measured, compare
from saeops.metrics import read_metrics
from saeops.ports import ObjectStore
from saeops.promotion.evidence import METRIC_FILES
from saeops.sae.canonical import META, SaeMeta
from saeops.stages.load import find
from saeops.stats import Bootstrap
from saeops.tables import read_table


def run(first: str, second: str, *, store: ObjectStore, cache: Path) -> Comparison:
    """`second` beside `first`; the same bundles always give the same figures.

    Args:
        first, second: `name@champion`, `name@previous`, `name@<seq>`, a digest, or a bundle's folder.

    Raises:
        NameUnknown, VersionUnknown: one of them means nothing.
        FolderDamaged, FormatUnknown: a bundle is not whole, or sealed by a newer saeops.
        NotComparable: they were measured on other models or under other token policies.
    """
    sides = [measured(find(reference, store=store, cache=cache)) for reference in (first, second)]
    return compare(sides[0], sides[1], Bootstrap(RESAMPLES, seed=0))


def measured(bundle: Bundle) -> Measured:
    """What a comparison sees of a verified bundle.

    Raises:
        FolderDamaged: a table or a metrics file does not hold what it should.
    """
    meta = SaeMeta.model_validate_json((bundle.path / "sae" / META).read_bytes())
    documents = bundle.path / "diagnostics" / schema.DOCUMENTS
    files = [bundle.path / file for file in METRIC_FILES if (bundle.path / file).exists()]
    return Measured(
        name=bundle.provenance.name,
        digest=bundle.digest,
        model=str(bundle.provenance.model["digest"]),
        policy=bundle.provenance.policy,
        sites=meta.sites,
        metrics={name: interval for file in files for name, interval in read_metrics(file).items()},
        documents=read_table(documents, schema.EvalDocumentTable) if documents.exists() else None,
    )
