"""Every variant of the union with choices that suit tiny data: a new one is in every test at once."""

from typing import get_args

from saeops.sae.variants import Variant

CHOICES = {"k": 3, "l1_coefficient": 0.2}


def small(cls: type[Variant]) -> Variant:
    """The variant's defaults, with the choices above where it has such a field."""
    return cls.model_validate({name: value for name, value in CHOICES.items() if name in cls.model_fields})


VARIANTS: list[Variant] = [small(cls) for cls in get_args(Variant)]
