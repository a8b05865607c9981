"""Which room declares which figures, in the order in which the report asks its questions."""

from saeops.diagnostics.metrics import DENSITIES, FIDELITY, L0, RECONSTRUCTION
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
)
