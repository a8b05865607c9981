"""The registry's readable copy in MLflow: registered models, versions, aliases, tags. Never the truth.

`MemoryProjection` is the fake.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from saeops.adapters.mlflow import Connection
from saeops.errors import VersionUnknown
from saeops.promotion.projection import Shown, ShownVersion, Tags

_DIGEST_LAST = re.compile(r"/([0-9a-f]{64})/?$")


def registered_name(name: str) -> str:
    """A dictionary's name as MLflow takes it: it forbids '/', and no dictionary's name holds '~'."""
    return name.replace("/", "~")


def dictionary_name(registered: str) -> str:
    """The inverse of `registered_name`."""
    return registered.replace("~", "/")


class MlflowProjection:
    """Registered models, versions, aliases and tags in MLflow, made from what the object store says.

    Every method raises TrackerUnreachable where MLflow does not answer, and ToolMissing where it is not installed.
    """

    def __init__(self, uri: str, experiment: str, *, artifacts: Path) -> None:
        self._connection = Connection(uri, experiment, artifacts=artifacts)

    def shown(self, name: str) -> Shown:
        with self._connection.answering():
            client, model = self._connection.client, registered_name(name)
            found = client.search_registered_models(f"name = '{model}'")
            if not found:
                return Shown()
            versions = [_shown(version) for version in client.search_model_versions(f"name = '{model}'")]
            aliases = {alias: int(number) for alias, number in found[0].aliases.items()}
            return Shown(tuple(sorted(versions, key=lambda v: v.number)), aliases, dict(found[0].tags))

    def register(self, name: str, digest: str, bundle: Path, tags: Tags) -> None:
        if self.shown(name).version_of(digest) is not None:
            return
        connection = self._connection
        with connection.answering():
            client, model = connection.client, registered_name(name)
            if not client.search_registered_models(f"name = '{model}'"):
                client.create_registered_model(model, tags={"saeops.name": name})
            # The version points to a copy of the bundle's own files; there is no pickle to load. Its folder is
            # named by the digest, because a version's source can never be edited, and its tags can.
            every_tag = {**_set(tags), "digest": digest}
            logged = client.create_logged_model(
                connection.experiment_id, name=f"bundle-{digest[:12]}", tags=every_tag
            )
            client.log_model_artifacts(logged.model_id, str(bundle), artifact_path=digest)
            logged = client.finalize_logged_model(logged.model_id, "READY")
            # A server wants the model's id. Embedded, MLflow would look that up at its global address, an
            # `mlflow.db` in the cwd.
            model_id = None if connection.embedded else logged.model_id
            source = f"{logged.artifact_location.rstrip('/')}/{digest}"
            client.create_model_version(model, source=source, tags=every_tag, model_id=model_id)

    def tag(self, name: str, digest: str | None, tags: Tags) -> None:
        """Set and remove tags of a version, or (digest None) of the name itself.

        Raises:
            VersionUnknown: no version was registered for this digest.
        """
        version = None if digest is None else self._number(name, digest)
        with self._connection.answering():
            client, model = self._connection.client, registered_name(name)
            for tag, value in tags.items():
                if version is None and value is None:
                    client.delete_registered_model_tag(model, tag)
                elif version is None:
                    client.set_registered_model_tag(model, tag, value)
                elif value is None:
                    client.delete_model_version_tag(model, version, tag)
                else:
                    client.set_model_version_tag(model, version, tag, value)

    def point(self, name: str, alias: str, digest: str | None) -> None:
        """Set or remove an alias.

        Raises:
            VersionUnknown: no version was registered for this digest.
        """
        version = None if digest is None else self._number(name, digest)
        with self._connection.answering():
            client, model = self._connection.client, registered_name(name)
            if version is not None:
                client.set_registered_model_alias(model, alias, version)
            elif alias in self.shown(name).aliases:
                client.delete_registered_model_alias(model, alias)

    def aliases(self, name: str) -> dict[str, str]:
        return self.shown(name).digests()

    def _number(self, name: str, digest: str) -> str:
        version = self.shown(name).version_of(digest)
        if version is None:
            raise _not_registered(name, digest)
        return str(version.number)


def _shown(version: Any) -> ShownVersion:
    named = _DIGEST_LAST.search(version.source or "")
    return ShownVersion(int(version.version), named[1] if named else None, dict(version.tags))


def _set(tags: Tags) -> dict[str, str]:
    return {tag: value for tag, value in tags.items() if value is not None}


class NoProjection:
    """For SAEOPS_TRACKING=none: there is no readable copy, and nobody misses it."""

    def shown(self, name: str) -> None:
        return None

    def register(self, name: str, digest: str, bundle: Path, tags: Tags) -> None:
        pass

    def tag(self, name: str, digest: str | None, tags: Tags) -> None:
        pass

    def point(self, name: str, alias: str, digest: str | None) -> None:
        pass

    def aliases(self, name: str) -> dict[str, str]:
        return {}


@dataclass
class MemoryProjection:
    """The fake: versions, aliases and tags in memory."""

    copies: dict[str, Shown] = field(default_factory=dict)
    """Name → what is shown of it; tests edit it as a hand would edit MLflow."""

    def shown(self, name: str) -> Shown:
        return self.copies.get(name, Shown())

    def register(self, name: str, digest: str, bundle: Path, tags: Tags) -> None:
        was = self.shown(name)
        if was.version_of(digest) is None:
            number = 1 + max((version.number for version in was.versions), default=0)
            made = ShownVersion(number, digest, {**_set(tags), "digest": digest})
            self.copies[name] = replace(was, versions=(*was.versions, made))

    def tag(self, name: str, digest: str | None, tags: Tags) -> None:
        was = self.shown(name)
        if digest is None:
            self.copies[name] = replace(was, tags=_set({**was.tags, **tags}))
            return
        meant = self._version(name, digest)
        told = replace(meant, tags=_set({**meant.tags, **tags}))
        self.copies[name] = replace(was, versions=tuple(told if v is meant else v for v in was.versions))

    def point(self, name: str, alias: str, digest: str | None) -> None:
        was = self.shown(name)
        aliases = {key: number for key, number in was.aliases.items() if key != alias}
        if digest is not None:
            aliases[alias] = self._version(name, digest).number
        self.copies[name] = replace(was, aliases=aliases)

    def aliases(self, name: str) -> dict[str, str]:
        return self.shown(name).digests()

    def _version(self, name: str, digest: str) -> ShownVersion:
        version = self.shown(name).version_of(digest)
        if version is None:
            raise _not_registered(name, digest)
        return version


def _not_registered(name: str, digest: str) -> VersionUnknown:
    return VersionUnknown(
        f"{name}: MLflow has no version for bundle {digest[:12]}",
        hint=f"`saeops reconcile {name}` registers what the object store has",
    )
