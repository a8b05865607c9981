"""What a retrain keeps of the champion: the activations, on whose tokens the latents of both are matched."""

import json
import os
import shutil
from pathlib import Path

from prefect import task

from saeops.dictionary.format import PROVENANCE
from saeops.errors import SaeopsError
from saeops.promotion import keys
from saeops.sealed import open_sealed
from tasks.checkout import Checkout
from tasks.retries import RETRIED


@task(name="keep the champion's activations", **RETRIED)
def keep_activations(checkout: Checkout, champion: str) -> Path | None:
    """A folder that a new harvest leaves alone, of hard links; None where this checkout has another set."""
    services = checkout.services
    provenance = services.store.get(keys.bundle_key(champion, PROVENANCE))
    wanted = json.loads(provenance.data)["upstream"].get("activations") if provenance else None
    own, aside = services.space.activations, kept_at(checkout)
    if wanted is None or _digest(aside) == wanted:
        return aside if wanted else None
    drop_activations(checkout)
    if _digest(own) != wanted:
        return None
    work = aside.with_name(f".{aside.name}")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(own, work, copy_function=os.link)
    work.rename(aside)
    return aside


def drop_activations(checkout: Checkout) -> None:
    """Give their room back."""
    shutil.rmtree(kept_at(checkout), ignore_errors=True)


def kept_at(checkout: Checkout) -> Path:
    """Where they are kept."""
    return checkout.services.settings.root / "artifacts" / "activations-of-champion"


def _digest(folder: Path) -> str | None:
    try:
        return open_sealed(folder, kind="activations").digest
    except SaeopsError:
        return None
