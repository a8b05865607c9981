"""The registry's readable copy in MLflow: registered models, versions, aliases. Never the truth.

`MemoryProjection` is the fake.
"""

from collections.abc import Mapping
from pathlib import Path

from saeops.adapters.mlflow import Connection
from saeops.errors import VersionUnknown


def registered_name(name: str) -> str:
    """A dictionary's name as MLflow takes it: it forbids '/', and no dictionary's name holds '~'."""
    return name.replace("/", "~")


def dictionary_name(registered: str) -> str:
    """The inverse of `registered_name`."""
    return registered.replace("~", "/")


class MlflowProjection:
    """Registered models, versions and aliases in MLflow, made from what the object store says."""

    def __init__(self, uri: str, experiment: str, *, artifacts: Path) -> None:
        self._connection = Connection(uri, experiment, artifacts=artifacts)

    def register(self, name: str, digest: str, bundle: Path, tags: Mapping[str, str]) -> None:
        with self._connection.answering():
            if self._version(name, digest) is not None:
                return
            client, model = self._connection.client, registered_name(name)
            if not client.search_registered_models(f"name = '{model}'"):
                client.create_registered_model(model, tags={"saeops.name": name})
            # The version points to a copy of the bundle's own files; there is no pickle to load.
            every_tag = {**tags, "digest": digest}
            logged = client.create_logged_model(
                self._connection.experiment_id, name=f"bundle-{digest[:12]}", tags=every_tag
            )
            client.log_model_artifacts(logged.model_id, str(bundle))
            logged = client.finalize_logged_model(logged.model_id, "READY")
            # Without `model_id`: MLflow would look that up at its global address, an `mlflow.db` in the cwd.
            client.create_model_version(model, source=logged.artifact_location, tags=every_tag)

    def aliases(self, name: str) -> dict[str, str]:
        with self._connection.answering():
            client, model = self._connection.client, registered_name(name)
            found = client.search_registered_models(f"name = '{model}'")
            if not found:
                return {}
            return {
                alias: client.get_model_version(model, str(version)).tags["digest"]
                for alias, version in found[0].aliases.items()
            }

    def point(self, name: str, alias: str, digest: str | None) -> None:
        """Set or remove an alias.

        Raises:
            VersionUnknown: no version was registered for this digest.
        """
        with self._connection.answering():
            client, model = self._connection.client, registered_name(name)
            if digest is None:
                if alias in self.aliases(name):
                    client.delete_registered_model_alias(model, alias)
                return
            version = self._version(name, digest)
            if version is None:
                raise _not_registered(name, digest)
            client.set_registered_model_alias(model, alias, version)

    def _version(self, name: str, digest: str) -> str | None:
        found = self._connection.client.search_model_versions(
            f"name = '{registered_name(name)}' and tags.digest = '{digest}'"
        )
        # Two registrations that crossed leave two equal versions; everybody takes the first.
        return min((str(version.version) for version in found), key=int, default=None)


class NoProjection:
    """For SAEOPS_TRACKING=none: there is no readable copy, and nobody misses it."""

    def register(self, name: str, digest: str, bundle: Path, tags: Mapping[str, str]) -> None:
        pass

    def aliases(self, name: str) -> dict[str, str]:
        return {}

    def point(self, name: str, alias: str, digest: str | None) -> None:
        pass


class MemoryProjection:
    """The fake: registered digests and aliases in memory."""

    def __init__(self) -> None:
        self.versions: dict[str, dict[str, dict[str, str]]] = {}
        self._aliases: dict[str, dict[str, str]] = {}

    def register(self, name: str, digest: str, bundle: Path, tags: Mapping[str, str]) -> None:
        self.versions.setdefault(name, {}).setdefault(digest, dict(tags))

    def aliases(self, name: str) -> dict[str, str]:
        return dict(self._aliases.get(name, {}))

    def point(self, name: str, alias: str, digest: str | None) -> None:
        if digest is None:
            self._aliases.get(name, {}).pop(alias, None)
            return
        if digest not in self.versions.get(name, {}):
            raise _not_registered(name, digest)
        self._aliases.setdefault(name, {})[alias] = digest


def _not_registered(name: str, digest: str) -> VersionUnknown:
    return VersionUnknown(
        f"{name}: MLflow has no version for bundle {digest[:12]}",
        hint=f"`saeops reconcile {name}` registers what the object store has",
    )
