"""Settings: addresses and secrets, from the environment only. Choices live in params.yaml."""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from saeops.config import Frozen


class Settings(Frozen):
    """Where things are. Every service has an embedded default and a production form."""

    root: Path
    """The checkout: holds params.yaml, dvc.yaml and artifacts/."""
    var: Path
    """SAEOPS_VAR: where embedded services keep their data (default: <root>/var)."""
    cache: Path
    """SAEOPS_CACHE: converted models and verified bundles (default: ~/.cache/saeops)."""
    store: str
    """SAEOPS_STORE: the registry's object store, a folder or s3://bucket/prefix (default: <var>/registry)."""
    ledger: str
    """SAEOPS_LEDGER: the review ledger's database (default: SQLite in <var>/reviews.db)."""
    tracking: str
    """SAEOPS_TRACKING: MLflow's tracking address, or `none` (default: SQLite in <var>/mlflow.db)."""
    llm_api_key: SecretStr | None = None
    """SAEOPS_LLM_API_KEY: key for an OpenAI-compatible endpoint."""
    alerts_webhook: SecretStr | None = None
    """SAEOPS_ALERTS_WEBHOOK: address that alerts are posted to; it may hold a token (default: none)."""
    reviewer: str = "unknown"
    """SAEOPS_USER, else USER: who decides, promotes and rolls back."""

    @classmethod
    def from_environment(cls, root: Path, environ: Mapping[str, str] | None = None) -> "Settings":
        env = os.environ if environ is None else environ
        root = root.resolve()
        var = Path(env.get("SAEOPS_VAR", root / "var")).resolve()
        key = env.get("SAEOPS_LLM_API_KEY")
        webhook = env.get("SAEOPS_ALERTS_WEBHOOK")
        return cls(
            root=root,
            var=var,
            cache=Path(env.get("SAEOPS_CACHE", Path.home() / ".cache" / "saeops")),
            store=env.get("SAEOPS_STORE", str(var / "registry")),
            ledger=env.get("SAEOPS_LEDGER", f"sqlite:///{var / 'reviews.db'}"),
            tracking=env.get("SAEOPS_TRACKING", f"sqlite:///{var / 'mlflow.db'}"),
            llm_api_key=SecretStr(key) if key else None,
            alerts_webhook=SecretStr(webhook) if webhook else None,
            reviewer=env.get("SAEOPS_USER") or env.get("USER") or "unknown",
        )
