"""What is trained, and how each library is set: `saelens@lr=1e-3,decay=0.2` is SAELens with two changes."""

from typing import Literal

from pydantic import Field

from saeops.config import Frozen

VARIANTS = ("topk", "batch_topk", "matryoshka", "jumprelu", "relu_l1", "gated")
LIBRARIES = {
    "ours": VARIANTS,
    "saelens": VARIANTS,
    "sparsify": ("topk",),
    "dictionary_learning": VARIANTS,
    "overcomplete": ("topk", "batch_topk"),
}
"""Which variants each library trains."""
PREFIX_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Nested prefixes of a Matryoshka SAE, as shares of its latents."""


class Problem(Frozen):
    """The same for every contender."""

    variant: Literal["topk", "batch_topk", "matryoshka", "jumprelu", "relu_l1", "gated"]
    d_model: int = Field(ge=1)
    d_sae: int = Field(ge=1)
    k: int = Field(ge=1)
    """Latents a token; the L0 aimed at where the variant has no k."""
    batch: int = Field(ge=1)
    """Tokens a step."""
    steps: int = Field(ge=1)
    """Steps of the whole run: schedules and warm-ups are shares of it."""
    seed: int = 0

    @property
    def prefixes(self) -> list[int]:
        """Widths of a Matryoshka SAE's levels."""
        return [max(1, round(share * self.d_sae)) for share in PREFIX_SHARES]


class Recipe(Frozen):
    """A library and what is changed from its defaults."""

    library: str
    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate; null: the library's own."""
    warmup: float | None = Field(default=None, ge=0, lt=1)
    """Share of the steps; null: the library's own."""
    decay: float | None = Field(default=None, ge=0, le=1)
    """Share of the steps; null: the library's own."""
    normalise: bool = False
    """Scale activations by the library's own facility, where it has one that is off by default."""
    coefficient: float | None = Field(default=None, ge=0)
    """Weight of the sparsity penalty; null: the library's own."""
    optimiser: str | None = None
    """sparsify: signum (its default) or adam."""
    encoder: Literal["exact", "shortlist"] | None = None
    """ours, TopK: how latents are searched; null: exactly."""
    kernels: Literal["native", "torch"] | None = None
    """ours: compiled kernels, or plain torch; null: compiled, where they can be built."""

    @classmethod
    def parse(cls, text: str) -> "Recipe":
        """From `library` or `library@key=value,key=value`.

        Raises:
            ValueError: no such library, key or value.
        """
        library, _, changes = text.partition("@")
        if library not in LIBRARIES:
            raise ValueError(f"no library {library!r}; there are {', '.join(LIBRARIES)}")
        pairs = (change.partition("=") for change in changes.split(",") if change)
        return cls.model_validate({"library": library, **{key: value for key, _, value in pairs}})

    @property
    def label(self) -> str:
        """As it was written, with the changes in order."""
        changes = self.model_dump(exclude={"library"}, exclude_defaults=True)
        return (
            self.library
            + ("@" if changes else "")
            + ",".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in sorted(changes.items()))
        )


def contenders(variant: str, recipes: list[Recipe]) -> list[Recipe]:
    """Those of the recipes whose library trains the variant."""
    return [
        recipe
        for recipe in recipes
        if variant in LIBRARIES[recipe.library] and (recipe.encoder is None or variant == "topk")
    ]
