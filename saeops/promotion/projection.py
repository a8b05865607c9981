"""The aliases that a readable copy of the registry should show, and how far it is from that."""

from collections.abc import Mapping
from dataclasses import dataclass

from saeops.promotion.state import SHORT, State


@dataclass(frozen=True)
class AliasChange:
    """One alias to set, or to remove."""

    alias: str
    found: str | None
    wanted: str | None

    def __str__(self) -> str:
        def short(digest: str | None) -> str:
            return digest[:SHORT] if digest else "nothing"

        return f"alias {self.alias}: {short(self.found)} → {short(self.wanted)}"


def alias_changes(state: State, found: Mapping[str, str]) -> tuple[AliasChange, ...]:
    """What must change for `champion` and `previous` to tell the truth, and `candidate` to name no champion."""
    wanted: dict[str, str | None] = {"champion": state.champion, "previous": state.previous}
    if found.get("candidate") == state.champion:
        wanted["candidate"] = None
    return tuple(
        AliasChange(alias, found.get(alias), digest)
        for alias, digest in sorted(wanted.items())
        if found.get(alias) != digest
    )
