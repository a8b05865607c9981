"""A known dictionary and another made from it: permuted, turned a little; latents split, merged, killed, added.

# F latent of A, G latent of B, E width
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saeops.sae.codes import Codes

normalise = torch.nn.functional.normalize


@dataclass(frozen=True)
class PlantedDrift:
    """Two dictionaries, and what was done between them; latents count as in their decoders."""

    first: Tensor
    second: Tensor
    partner: dict[int, int]
    """Latent of A → the same latent in B."""
    splits: dict[int, tuple[int, ...]]
    """Latent of A → its parts in B."""
    merges: dict[int, tuple[int, ...]]
    """Latent of B → its parts in A."""
    vanished: set[int]
    new: set[int]
    first_codes: Codes | None = None
    second_codes: Codes | None = None


def plant_drift(
    *,
    latents: int,
    width: int,
    seed: int = 0,
    split: int = 0,
    merged: int = 0,
    killed: int = 0,
    added: int = 0,
    turn_degrees: float = 10.0,
    part_degrees: float = 40.0,
    tokens: int = 0,
    density: float = 0.02,
) -> PlantedDrift:
    """Random directions, each turned by `turn_degrees` towards a random one, then put in random order.

    A split latent becomes two at `part_degrees` on opposite sides of it, which fire on half its tokens each; a
    merged one is the reverse. With `tokens`, activations are drawn too: kept latents fire where they did, with a
    tenth of noise in their strength.
    """
    g = torch.Generator().manual_seed(seed)
    generator = np.random.default_rng(seed)
    order = generator.permutation(latents)
    fates = np.split(order, np.cumsum([split, merged, killed]))
    to_split, to_merge, to_kill, to_keep = (part.tolist() for part in fates)
    bases = normalise(torch.randn(latents, width, generator=g), dim=1)

    def aside(direction_E: Tensor, degrees: float) -> Tensor:
        away = torch.randn(width, generator=g)
        away = normalise(away - (away @ direction_E) * direction_E, dim=0)
        radians = torch.tensor(np.deg2rad(degrees))
        return radians.cos() * direction_E + radians.sin() * away

    def parts(direction_E: Tensor) -> list[Tensor]:
        one = aside(direction_E, part_degrees)
        return [one, 2 * (one @ direction_E) * direction_E - one]

    first: list[tuple[Tensor, tuple[str, int, int]]] = []
    second: list[tuple[Tensor, tuple[str, int, int]]] = []
    for base in to_keep:
        first.append((bases[base], ("keep", base, 0)))
        second.append((aside(bases[base], turn_degrees), ("keep", base, 0)))
    first += [(bases[base], ("kill", base, 0)) for base in to_kill]
    for base in to_split:
        first.append((bases[base], ("split", base, 0)))
        second += [(part, ("split", base, n)) for n, part in enumerate(parts(bases[base]), start=1)]
    for base in to_merge:
        second.append((bases[base], ("merge", base, 0)))
        first += [(part, ("merge", base, n)) for n, part in enumerate(parts(bases[base]), start=1)]
    second += [(normalise(torch.randn(width, generator=g), dim=0), ("add", n, 0)) for n in range(added)]
    sides = []
    for rows in (first, second):
        mixed = generator.permutation(len(rows))
        sides.append([rows[place] for place in mixed])
    at = [{what: place for place, (_, what) in enumerate(rows)} for rows in sides]
    truth = {
        "partner": {at[0]["keep", base, 0]: at[1]["keep", base, 0] for base in to_keep},
        "splits": {at[0]["split", base, 0]: tuple(at[1]["split", base, n] for n in (1, 2)) for base in to_split},
        "merges": {at[1]["merge", base, 0]: tuple(at[0]["merge", base, n] for n in (1, 2)) for base in to_merge},
        "vanished": {at[0]["kill", base, 0] for base in to_kill},
        "new": {at[1]["add", n, 0] for n in range(added)},
    }
    W_dec = [torch.stack([direction for direction, _ in rows]) for rows in sides]
    codes = (
        [_codes([what for _, what in rows], tokens, density, seed) for rows in sides] if tokens else [None, None]
    )
    return PlantedDrift(W_dec[0], W_dec[1], **truth, first_codes=codes[0], second_codes=codes[1])  # type: ignore[arg-type]


def _codes(rows: list[tuple[str, int, int]], tokens: int, density: float, seed: int) -> Codes:
    """A latent fires where its base does; parts share its tokens, strengths differ by a tenth between sides."""
    columns = []
    for fate, base, part in rows:
        own = np.random.default_rng([seed, base, fate == "add"])
        fires_T, half_T = own.random(tokens) < density, own.random(tokens) < 0.5
        strength_T = own.uniform(0.5, 1.5, tokens)
        if part:
            fires_T &= half_T if part == 1 else ~half_T
        noise_T = np.random.default_rng([seed, base, len(rows), part]).normal(0, 0.1, tokens)
        columns.append(np.where(fires_T, np.maximum(strength_T + noise_T, 0.01), 0))
    return Codes.from_dense(torch.from_numpy(np.stack(columns, axis=1).astype(np.float32)))
