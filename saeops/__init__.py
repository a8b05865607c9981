"""saeops: operate sparse-autoencoder feature dictionaries."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saeops.dictionary.handle import Dictionary
    from saeops.monitor.attached import Monitor

__all__ = ["Monitor", "load"]


def __getattr__(name: str) -> Any:
    # So that `import saeops` costs nothing.
    if name == "Monitor":
        from saeops.monitor.attached import Monitor

        return Monitor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(reference: str, *, root: str | Path = ".") -> "Dictionary":
    """A dictionary from the registry, every byte verified, kept in the local cache.

    Args:
        reference: `name@champion`, `name@previous`, `name@<seq>`, a digest, or a bundle's folder.
        root: the checkout, whose `var/registry` is the store unless SAEOPS_STORE names another.

    Raises:
        NameUnknown, VersionUnknown: the reference means nothing here; lists what there is.
        FolderDamaged: a file of the bundle is missing, extra, or changed; names it.
        StoreDenied: the store says no.
        StoreUnreachable: the store is away, and this machine never loaded what is asked for.

    Warns:
        StaleAnswer: the store is away; this is what the reference meant when it was last asked.
    """
    # Here, so that `import saeops` costs nothing.
    from saeops.services import Services
    from saeops.settings import Settings
    from saeops.stages.load import run

    settings = Settings.from_environment(Path(root))
    return run(reference, store=Services(settings, quiet=True).store, cache=settings.cache)
