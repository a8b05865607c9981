"""What a readable copy of the registry should show, and how far what it shows is from that."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from saeops.promotion import keys
from saeops.promotion.journal import Step
from saeops.promotion.state import SHORT, State

Tags = Mapping[str, str | None]
"""Tag → value; None where there is to be none."""

MAX_TAG_CHARS = 500
_OF_AN_ENTRY = ("operation", "at", "journal", "entry", "link")


@dataclass(frozen=True)
class ShownVersion:
    """One version as the copy shows it."""

    number: int
    digest: str | None
    """Of the bundle it was made from; None for a version that somebody else made."""
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Shown:
    """All that the copy shows of one name."""

    versions: tuple[ShownVersion, ...] = ()
    aliases: Mapping[str, int] = field(default_factory=dict)
    """Alias → number of the version."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Of the name as a whole."""

    def version_of(self, digest: str) -> ShownVersion | None:
        """The version of a bundle. Registrations that crossed leave two equal ones; everybody takes the first."""
        found = [version for version in self.versions if version.digest == digest]
        return min(found, key=lambda version: version.number, default=None)

    def digests(self) -> dict[str, str]:
        """Alias → digest, of the aliases that stand on a bundle's version."""
        digest = {version.number: version.digest for version in self.versions}
        return {alias: found for alias, number in self.aliases.items() if (found := digest.get(number))}


@dataclass(frozen=True)
class Wanted:
    """What the copy should show of one name."""

    versions: Mapping[str, Tags]
    """Digest of each version that was ever champion → its tags, oldest first."""
    removed: Mapping[str, str]
    """Digest → when and by whom its bundle was removed: such a version is not made again."""
    aliases: Mapping[str, str | None]
    """Alias → digest; None: no version carries it."""
    tags: Tags


@dataclass(frozen=True)
class Register:
    """A version that is missing, and can be made from its bundle."""

    digest: str
    tags: Tags

    def __str__(self) -> str:
        return f"version {self.digest[:SHORT]} of entry {self.tags['sequence']}: missing → registered"


@dataclass(frozen=True)
class Retag:
    """Tags to set, or to remove."""

    digest: str | None
    """The version that carries them; None: the name as a whole."""
    found: Tags
    wanted: Tags

    def __str__(self) -> str:
        whose = f"of version {self.digest[:SHORT]}" if self.digest else "of the name"
        # With another entry come its details, which nobody reads in a line.
        silent = _OF_AN_ENTRY if "sequence" in self.wanted else ()
        told = [tag for tag in self.wanted if tag not in silent]
        changes = [f"{tag} {_said(self.found[tag])} → {_said(self.wanted[tag])}" for tag in told]
        more = len(self.wanted) - len(told)
        return f"tags {whose}: {', '.join(changes)}{f' and {more} more' if more else ''}"


@dataclass(frozen=True)
class AliasChange:
    """One alias to set, or to remove."""

    alias: str
    found: str | None
    """The digest it stands on, or that of a foreign version in words."""
    wanted: str | None

    def __str__(self) -> str:
        return f"alias {self.alias}: {_said(self.found)} → {_said(self.wanted)}"


Repair = Register | Retag | AliasChange


def wanted(state: State, shown: Shown, *, removed: Mapping[str, str], refused: Collection[str] = ()) -> Wanted:
    """What the registry says, in the copy's terms.

    Args:
        shown: for `candidate`, which the registry knows nothing of: it stays where it is unless that is champion,
            pinned, removed, refused, or nobody's bundle.
        removed: digest → when and by whom, of bundles that are no longer in the store.
        refused: digests that the judge failed.
    """
    last = state.made_champion
    versions = {}
    for digest in dict.fromkeys(step.entry.to_digest for step in state.settled):
        mark = {"removed": removed.get(digest)}
        versions[digest] = {**version_tags(state.promotion_of(digest)), **mark}
    candidate = shown.digests().get("candidate")
    if candidate in {state.champion, *state.pinned, *removed, *refused}:
        candidate = None
    aliases = {"candidate": candidate, "champion": state.champion, "previous": state.previous}
    return Wanted(versions, removed, aliases, _name_tags(last) if last else {})


def repairs(want: Wanted, shown: Shown) -> tuple[Repair, ...]:
    """What must be done, in an order in which it can be done; nothing where the copy tells the truth.

    Tags, aliases and versions of other names than these are left alone: people may keep their own beside them.
    """
    missing = [digest for digest in want.versions if shown.version_of(digest) is None]
    made = [Register(digest, want.versions[digest]) for digest in missing if digest not in want.removed]
    return (*made, *_retags(want, shown), *_alias_changes(want, shown))


def version_tags(step: Step) -> dict[str, str | None]:
    """By what right a version is, or was, champion: the promotion, and its place in the journal's chain."""
    entry = step.entry
    return {
        "digest": entry.to_digest,
        "sequence": str(entry.sequence),
        "operation": entry.operation,
        "forced": str(entry.forced).lower(),
        "verdict": entry.verdict,
        "git_commit": entry.git_commit,
        "refused": None,
        **_place(step),
    }


def _name_tags(step: Step) -> dict[str, str | None]:
    """What made the champion champion, be it a promotion or a rollback."""
    entry = step.entry
    return {
        "action": entry.action,
        "sequence": str(entry.sequence),
        "operation": entry.operation,
        "at": entry.at,
        "who": entry.who[:MAX_TAG_CHARS],
        "reason": entry.reason[:MAX_TAG_CHARS] or None,
        **_place(step),
    }


def _place(step: Step) -> dict[str, str | None]:
    """The journal's link: where the entry lies, its sha256, and the link of the chain that it follows."""
    return {
        "journal": keys.entry_key(step.entry.name, step.entry.sequence),
        "entry": step.entry_sha256,
        "link": step.entry.previous,
    }


def _retags(want: Wanted, shown: Shown) -> list[Retag]:
    subjects: list[tuple[str | None, Tags, Tags]] = [(None, want.tags, shown.tags)]
    for digest, tags in want.versions.items():
        version = shown.version_of(digest)
        if version is not None:
            subjects.append((digest, tags, version.tags))
    retags = []
    for subject, tags, found in subjects:
        changed = {tag: value for tag, value in tags.items() if found.get(tag) != value}
        if changed:
            retags.append(Retag(subject, {tag: found.get(tag) for tag in changed}, changed))
    return retags


def _alias_changes(want: Wanted, shown: Shown) -> list[AliasChange]:
    changes = []
    for alias, digest in sorted(want.aliases.items()):
        version = shown.version_of(digest) if digest else None
        number = shown.aliases.get(alias)
        if digest is None and number is None:
            continue
        if version is None or version.number != number:
            changes.append(AliasChange(alias, _standing(shown, alias), digest))
    return changes


def _standing(shown: Shown, alias: str) -> str | None:
    number = shown.aliases.get(alias)
    if number is None:
        return None
    return shown.digests().get(alias) or f"version {number}, which was not made from a bundle"


def _said(value: str | None) -> str:
    if not value:
        return "nothing"
    return value[:SHORT] if re.fullmatch(r"[0-9a-f]{64}", value) else value


def as_json(repair: Repair) -> dict[str, Any]:
    """A repair as data."""
    match repair:
        case Register():
            return {"repair": "register", "digest": repair.digest}
        case Retag():
            found, new = dict(repair.found), dict(repair.wanted)
            return {"repair": "tag", "digest": repair.digest, "found": found, "wanted": new}
        case AliasChange():
            return {"repair": "alias", "alias": repair.alias, "found": repair.found, "wanted": repair.wanted}
