"""Which room declares which figures, in the order in which the report asks its questions."""

from saeops.diagnostics.metrics import FIDELITY, RECONSTRUCTION, SPARSITY
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
    Declared("Review", "What people said of a random sample of the labels.", REVIEW),
)
