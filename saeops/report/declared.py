"""Which room declares which figures, in the order in which the report asks its questions."""

from saeops.diagnostics.metrics import FIDELITY, RECONSTRUCTION, SPARSITY
from saeops.interventions.metrics import METRICS as INTERVENTIONS
from saeops.labelling.metrics import METRICS as LABELS
from saeops.metrics import Metric
from saeops.report.rows import Declared

REVIEW = (
    Metric(
        "review_acceptance",
        "1",
        "higher",
        "accepted or edited / decided, over the queue’s random sample",
        "saeops",
    ),
)

DECLARED = (
    Declared(
        "Reconstruction",
        "How much of the activations the dictionary gives back, on documents it never saw.",
        RECONSTRUCTION,
    ),
    Declared("Sparsity", "With how few latents, and how many of them never fire.", SPARSITY),
    Declared("Fidelity", "What the model loses when it runs on the reconstruction instead.", FIDELITY),
    Declared(
        "Labels",
        "How well the labels foretell where their latents fire, on documents that explained nothing.",
        tuple(LABELS.values()),
    ),
    Declared(
        "Interventions",
        "What the latents do to the model, beside random directions of the same length.",
        tuple(INTERVENTIONS.values()),
    ),
    Declared("Review", "What people said of a random sample of the labels.", REVIEW),
)
