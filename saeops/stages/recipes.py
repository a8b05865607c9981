"""Keeping a version's recipe, as long as the checkout that made it stands."""

from pathlib import Path

from saeops.dictionary.bundle import Bundle
from saeops.dictionary.format import REVIEWS
from saeops.dictionary.provenance import SOURCES, code_digest
from saeops.errors import DataMissing, ModelMismatch, RecipeMissing, UsageError
from saeops.ports import DataVersions, ObjectStore, Sources
from saeops.promotion.keys import recipe_key
from saeops.promotion.recipe import ALWAYS, LOCK, Recipe, parse_recipe
from saeops.promotion.state import SHORT

PACKAGE = "saeops"
READ = (*ALWAYS, "dvc.yaml", "requirements.lock", "pyproject.toml", "profiles", PACKAGE)
"""What stages and DVC read of a checkout."""
TEXTS = {*SOURCES, ".yaml", ".yml", ".lock", ".toml"}
"""Suffixes of those files of it that make a difference."""


def keep(store: ObjectStore, bundle: Bundle, *, root: Path, sources: Sources, data: DataVersions) -> Recipe:
    """Keep the recipe of a candidate, or of the version that people's decisions made of it; once is enough.

    Args:
        bundle: built in this checkout.
        root: the checkout.

    Raises:
        UsageError: no git commit, or no dvc.lock.
        ModelMismatch: the code in the checkout is no longer that which made it.
        DataMissing: dvc.lock does not agree with the checkout, or DVC's remote lacks what it names.
        DataVersionsFailed: DVC refuses, or its remote does not answer.
    """
    known = _known(store, bundle.digest)
    if known is not None:
        return known
    recipe = _known(store, bundle.candidate) or _written(bundle, root, sources, data)
    reviews = (bundle.path / REVIEWS).read_text()
    recipe = recipe.model_copy(update={"bundle": bundle.digest, "reviews": reviews})
    # Whoever was first kept one that is as good.
    store.put(recipe_key(bundle.digest), recipe.to_bytes(), if_absent=True)
    return recipe


def read(store: ObjectStore, digest: str, *, of: str) -> Recipe:
    """The recipe of a bundle.

    Raises:
        RecipeMissing: none was kept.
        JournalBroken, FormatUnknown: it is not as it was written.
    """
    found = store.get(recipe_key(digest))
    return parse_recipe(found.data if found else None, digest, of=of)


def _known(store: ObjectStore, digest: str) -> Recipe | None:
    try:
        return read(store, digest, of=digest)
    except RecipeMissing:
        return None


def _written(bundle: Bundle, root: Path, sources: Sources, data: DataVersions) -> Recipe:
    if not (root / LOCK).is_file():
        raise UsageError(f"there is no {LOCK} in {root}", hint="`dvc commit --force`, `dvc push`, promote again")
    package = root / PACKAGE
    if package.is_dir() and code_digest(package) != bundle.provenance.code:
        raise ModelMismatch(
            f"{package} is no longer the code that made {bundle.candidate[:SHORT]}",
            hint="build it again with this code, or check out the code that made it, then promote again",
        )
    commit = sources.commit()
    changed = [path for path in sources.uncommitted(READ) if Path(path).suffix in TEXTS]
    # Read before DVC compares them: what changes in between makes it disagree.
    files = {path: _text(root / path) for path in {*ALWAYS, *changed}}
    if not data.is_clean():
        raise DataMissing(
            f"{root / LOCK} does not agree with the checkout, or DVC's remote lacks data that it names",
            hint="`dvc status` and `dvc status --cloud` say what; `dvc commit --force`, `dvc push`, promote again",
        )
    name = bundle.provenance.name
    return Recipe(
        bundle=bundle.candidate, candidate=bundle.candidate, name=name, commit=commit, files=files, reviews=""
    )


def _text(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None
