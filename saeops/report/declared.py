"""Which room declares which figures, in the order in which the report asks its questions."""

from saeops.diagnostics.concepts.metrics import ABSORPTION, PROBES
from saeops.diagnostics.metrics import DENSITIES, FIDELITY, L0, RECONSTRUCTION
from saeops.diagnostics.quality.metrics import QUALITY
from saeops.drift.audit.metrics import AUDIT
from saeops.drift.matching.metrics import BESIDE_SEEDS, CARRY_OVER, MATCHING
from saeops.interventions.metrics import INTERVENTIONS
from saeops.labelling.metrics import LABELS
from saeops.report.rows import Declared
from saeops.review.metrics import REVIEW

DECLARED = (
    Declared(
        "Reconstruction",
        "How much of the activations the dictionary gives back, on documents it never saw.",
        RECONSTRUCTION,
    ),
    Declared("Sparsity", "With how few latents, and how many of them never fire.", (*L0, *DENSITIES)),
    Declared("Fidelity", "What the model loses when it runs on the reconstruction instead.", FIDELITY),
    Declared(
        "Feature quality",
        "Whether single latents mean something: on what they fire, what they write, and whether they recur.",
        QUALITY,
    ),
    Declared("Known concepts", "How well single latents tell concepts that people already know.", PROBES),
    Declared("Absorption", "How often a latent is silent where what it stands for is there.", ABSORPTION),
    Declared(
        "Labels",
        "How well the labels foretell where their latents fire, on documents that explained nothing.",
        LABELS,
    ),
    Declared(
        "Interventions",
        "What the latents do to the model, beside random directions of the same length.",
        INTERVENTIONS,
    ),
    Declared("Review", "What people said of a random sample of the labels.", REVIEW),
    Declared("Drift", "What of the dictionary still holds on another model, from `saeops audit`.", AUDIT),
    Declared(
        "Matching",
        "What became of the latents of another dictionary in this one, from `saeops match`.",
        (*MATCHING, *BESIDE_SEEDS),
    ),
    Declared("Carry-over", "Which labels of an older dictionary stand in this one.", CARRY_OVER),
)
