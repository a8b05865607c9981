"""The catalog of an SAE's latents, as a sealed folder holds it: docs/formats/catalog.md."""

from pathlib import Path
from typing import Any

from saeops.catalog import schema
from saeops.catalog.build import latent_table
from saeops.catalog.logits import LogitEffects, logit_effects
from saeops.refs import writes_to_residual
from saeops.stages.examine import CATALOG_SPLIT, Subject
from saeops.tables import write_table


def write_catalog(subject: Subject, folder: Path) -> dict[str, Any]:
    """Write the catalog's tables; what its manifest says of them."""
    sae, made = subject.sae, subject.catalogued
    latents = latent_table(made, _effects(subject), subject.model.tokens)
    write_table(latents, folder / schema.LATENTS, schema.LatentTable, rows=sae.meta.d_sae)
    write_table(made.contexts, folder / schema.CONTEXTS, schema.ContextTable, rows=len(made.contexts))
    return {
        "model": subject.model.identity.to_json(),
        "site": sae.meta.site,
        "target_site": sae.meta.target_site,
        "split": CATALOG_SPLIT,
        "documents": len(made.layout.document_U),
        "tokens": made.gathered.tokens,
        "latents": sae.meta.d_sae,
        "living": int((made.gathered.n_active_F > 0).sum()),
        "contexts": len(made.contexts),
    }


def _effects(subject: Subject) -> list[LogitEffects]:
    """Logit effects of all latents; none where they do not write to the residual stream."""
    if not writes_to_residual(subject.sae.meta.sites.target):
        return []
    W_dec, effects = subject.sae.W_dec, []
    n, vocabulary = subject.params.diagnose.logit_tokens, subject.model.identity.vocabulary
    with subject.watch.bar("logit effects", len(W_dec), "latents") as bar:
        for part in logit_effects(subject.model.unembed, W_dec, n, vocabulary=vocabulary):
            effects.append(part)
            bar.advance(len(part.raised_FN))
    return effects
