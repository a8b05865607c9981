"""What people do to MLflow behind the registry's back, and what happens to its database."""

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from saeops.adapters.projection import MemoryProjection, MlflowProjection, registered_name
from saeops.promotion.projection import Shown, ShownVersion
from tests.postgres import Postgres


class Hand(Protocol):
    """Somebody with MLflow's page open; versions are named by their numbers there."""

    def point(self, alias: str, version: int | None) -> None: ...

    def delete_version(self, version: int) -> None: ...

    def delete_name(self) -> None:
        """Also where there is none."""
        ...

    def tag(self, version: int | None, tag: str, value: str | None) -> None: ...

    def make_version(self) -> int:
        """One that no bundle stands behind."""
        ...

    def back_up(self) -> None: ...

    def restore(self) -> None: ...


class MemoryHand:
    def __init__(self, projection: MemoryProjection, name: str) -> None:
        self.projection, self.name = projection, name
        self.backup: dict[str, Shown] = {}

    @property
    def shown(self) -> Shown:
        return self.projection.shown(self.name)

    def put(self, **changes: object) -> None:
        self.projection.copies[self.name] = replace(self.shown, **changes)  # type: ignore[arg-type]

    def point(self, alias: str, version: int | None) -> None:
        others = {key: number for key, number in self.shown.aliases.items() if key != alias}
        self.put(aliases=others if version is None else {**others, alias: version})

    def delete_version(self, version: int) -> None:
        self.put(
            versions=tuple(found for found in self.shown.versions if found.number != version),
            aliases={alias: number for alias, number in self.shown.aliases.items() if number != version},
        )

    def delete_name(self) -> None:
        self.projection.copies.pop(self.name, None)

    def tag(self, version: int | None, tag: str, value: str | None) -> None:
        def edited(tags: Any) -> dict[str, str]:
            return {k: v for k, v in {**tags, tag: value}.items() if v is not None}

        if version is None:
            self.put(tags=edited(self.shown.tags))
            return
        versions = (replace(v, tags=edited(v.tags)) if v.number == version else v for v in self.shown.versions)
        self.put(versions=tuple(versions))

    def make_version(self) -> int:
        number = 1 + len(self.shown.versions)
        self.put(versions=(*self.shown.versions, ShownVersion(number, None, {})))
        return number

    def back_up(self) -> None:
        self.backup = dict(self.projection.copies)

    def restore(self) -> None:
        self.projection.copies = dict(self.backup)


class MlflowHand:
    """Through MLflow's own client."""

    def __init__(self, projection: MlflowProjection, name: str, folder: Path) -> None:
        self.client = projection._connection.client
        self.model, self.folder = registered_name(name), folder

    def point(self, alias: str, version: int | None) -> None:
        if version is None:
            self.client.delete_registered_model_alias(self.model, alias)
        else:
            self.client.set_registered_model_alias(self.model, alias, str(version))

    def delete_version(self, version: int) -> None:
        self.client.delete_model_version(self.model, str(version))

    def delete_name(self) -> None:
        if self.client.search_registered_models(f"name = '{self.model}'"):
            self.client.delete_registered_model(self.model)

    def tag(self, version: int | None, tag: str, value: str | None) -> None:
        of = (self.model,) if version is None else (self.model, str(version))
        what = "registered_model" if version is None else "model_version"
        if value is None:
            getattr(self.client, f"delete_{what}_tag")(*of, tag)
        else:
            getattr(self.client, f"set_{what}_tag")(*of, tag, value)

    def make_version(self) -> int:
        return int(self.client.create_model_version(self.model, source="s3://elsewhere/a-pickle").version)


class SqliteHand(MlflowHand):
    def __init__(self, projection: MlflowProjection, name: str, folder: Path, database: Path) -> None:
        super().__init__(projection, name, folder)
        self.database, self.copy = database, folder / "yesterday.db"

    def back_up(self) -> None:
        _copy(self.database, self.copy)

    def restore(self) -> None:
        _copy(self.copy, self.database)


class PostgresHand(MlflowHand):
    def __init__(self, projection: MlflowProjection, name: str, folder: Path, postgres: Postgres) -> None:
        super().__init__(projection, name, folder)
        self.postgres, self.copy = postgres, folder / "yesterday.dump"

    def back_up(self) -> None:
        self.postgres.dump("mlflow", self.copy)

    def restore(self) -> None:
        self.postgres.restore("mlflow", self.copy)


def _copy(here: Path, there: Path) -> None:
    """By SQLite itself, whoever has the file open."""
    read, written = sqlite3.connect(here), sqlite3.connect(there)
    read.backup(written)
    read.close()
    written.close()
