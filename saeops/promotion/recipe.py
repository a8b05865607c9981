"""The recipe of a version: what it takes beside git and DVC's remote to build it again.

Kept under the bundle's digest, once everything it names could be fetched by
somebody else: so a version with a recipe can be restored, one without was
promoted before its data were anywhere but on the machine that built it. Why
not in the bundle or the journal: docs/decisions/recipes.md.
"""

import json

from pydantic import model_validator

from saeops.errors import RecipeMissing
from saeops.promotion.journal import Record, broken, parse_record
from saeops.promotion.state import SHORT
from saeops.review.ledger import LedgerEntry

LOCK = "dvc.lock"
ALWAYS = ("params.yaml", "profile.yaml", LOCK)
"""Kept whether or not git has them: builds write the last two."""


class Recipe(Record):
    """recipes/<bundle>.json."""

    bundle: str
    """Digest of the version."""
    candidate: str
    """Digest of the bundle that its stages made: the version itself, or what decisions were sealed into."""
    name: str
    """The dictionary's."""
    commit: str
    """The git commit that was checked out."""
    files: dict[str, str | None]
    """Path in the checkout → text, over what the commit holds; None: the commit has it, the build had not."""
    reviews: str
    """The decisions sealed into the version: its `reviews.jsonl`."""

    @model_validator(mode="after")
    def _knows_its_data(self) -> "Recipe":
        if self.files.get(LOCK) is None:
            raise ValueError(f"{LOCK} is not in it")
        return self

    @property
    def uncommitted(self) -> tuple[str, ...]:
        """Files that no commit held when it was built, beside those that builds write."""
        return tuple(sorted(path for path in self.files if path not in ALWAYS))

    def decisions(self) -> list[LedgerEntry]:
        """The decisions sealed into the version, in order."""
        return [LedgerEntry.from_json(json.loads(line)) for line in self.reviews.splitlines()]


def parse_recipe(data: bytes | None, digest: str, *, of: str) -> Recipe:
    """The recipe of the bundle of this digest.

    Args:
        data: the object's bytes; None where there is none.
        of: how the version was asked for.

    Raises:
        RecipeMissing: none was kept.
        JournalBroken, FormatUnknown: it is not as it was written; it is another bundle's.
    """
    where = f"the recipe of {digest[:SHORT]}"
    if data is None:
        raise RecipeMissing(
            f"no recipe was kept of {of} ({digest[:SHORT]}): when it was promoted, its code was in no commit, "
            "or its data were not in DVC's remote",
            hint="where its artifacts/ still lie: `dvc commit --force`, `dvc push`, then `saeops promote` again",
        )
    recipe = parse_record(Recipe, data, where)
    if recipe.bundle != digest:
        raise broken(where, f"is that of {recipe.bundle[:SHORT]}")
    return recipe
