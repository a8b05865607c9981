"""The base of every params section: frozen, typed, unknown keys refused.

Each room owns its section in a file without heavy imports, so that reading
params never costs an import of torch.
"""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value that cannot change after it was made; unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
    )
