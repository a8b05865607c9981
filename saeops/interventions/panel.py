"""The panel: short prompts, with what an intervention on their topic should move, and what not.

Format: docs/formats/panel.md.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from saeops.digests import digest_json
from saeops.errors import PanelInvalid

PANEL_VERSION = 1
_FIELDS = ("id", "topic", "prompt", "should_move", "should_not_move")
_CONTINUATIONS = ("should_move", "should_not_move")


@dataclass(frozen=True)
class PanelItem:
    """One prompt."""

    id: str
    topic: str
    prompt: str
    should_move: tuple[str, ...]
    """Continuations that carry the prompt's content."""
    should_not_move: tuple[str, ...]
    """Continuations that fit almost anywhere."""


@dataclass(frozen=True)
class Panel:
    """The prompts, in the file's order."""

    items: tuple[PanelItem, ...]

    def digest(self) -> str:
        """sha256 of the content: comments in the file change nothing."""
        return digest_json(asdict(self))


@dataclass(frozen=True)
class ScoredItem:
    """A prompt as token ids, with the first token of each continuation."""

    ids: tuple[int, ...]
    move: tuple[int, ...]
    stay: tuple[int, ...]
    """Empty, like `move`, where this tokenizer cannot tell the two apart."""


def read_panel(path: Path) -> Panel:
    """Read a panel file.

    Raises:
        PanelInvalid: every fault at once, each with the item it is in.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise PanelInvalid(f"no panel at {path}", hint="set bench.panel to a panel file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PanelInvalid(f"{path} is not YAML: {error}", hint="see docs/formats/panel.md") from error
    return parse_panel(values, source=str(path))


def parse_panel(values: Any, *, source: str) -> Panel:
    """A panel from plain values; raises as `read_panel` does."""
    faults = _file_faults(values)
    items = values["items"] if not faults else []
    for number, item in enumerate(items, start=1):
        faults += [f"{_name(item, number)}: {fault}" for fault in _item_faults(item)]
    ids = Counter(str(item["id"]) for item in items if isinstance(item, Mapping) and "id" in item)
    faults += [f"{name}: {count} items have this id" for name, count in ids.items() if count > 1]
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        count = f"{len(faults)} fault{'s' if len(faults) != 1 else ''}"
        raise PanelInvalid(f"{count} in {source}:\n{lines}", hint="see docs/formats/panel.md")
    return Panel(
        tuple(
            PanelItem(i["id"], i["topic"], i["prompt"], tuple(i["should_move"]), tuple(i["should_not_move"]))
            for i in items
        )
    )


def score_item(item: PanelItem, encode: Callable[[str], Sequence[int]]) -> ScoredItem:
    """A prompt for one tokenizer. A continuation is scored by its first token.

    Where that token is the same on both sides, the item says nothing about
    specificity with this tokenizer; it still serves as a prompt.
    """
    move, stay = (
        tuple(sorted({encode(text)[0] for text in texts})) for texts in (item.should_move, item.should_not_move)
    )
    told_apart = not set(move) & set(stay)
    return ScoredItem(tuple(encode(item.prompt)), move if told_apart else (), stay if told_apart else ())


def _file_faults(values: Any) -> list[str]:
    if not isinstance(values, Mapping) or set(values) != {"version", "items"}:
        return ["the file must hold `version` and `items`"]
    faults = []
    if values["version"] != PANEL_VERSION:
        faults.append(f"version {values['version']!r}; this saeops reads version {PANEL_VERSION}")
    if not isinstance(values["items"], list) or not values["items"]:
        faults.append("`items` must list at least one prompt")
    return faults


def _item_faults(item: Any) -> list[str]:
    if not isinstance(item, Mapping):
        return ["must have fields"]
    faults = [f"{field} is missing" for field in _FIELDS if field not in item]
    faults += [f"{field} is no field of a panel item" for field in item if field not in _FIELDS]
    for field in ("id", "topic", "prompt"):
        if field in item and not (isinstance(item[field], str) and item[field].strip()):
            faults.append(f"{field} must be a text")
    for field in _CONTINUATIONS:
        if field in item:
            faults += [f"{field} {fault}" for fault in _continuation_faults(item[field])]
    if not faults:
        both = sorted(set(item["should_move"]) & set(item["should_not_move"]))
        faults += [f"{text!r} should move and should not move" for text in both]
    return faults


def _continuation_faults(texts: Any) -> list[str]:
    if not isinstance(texts, list) or not texts:
        return ["must list at least one continuation"]
    faults = [f"holds {text!r}, which is empty" for text in texts if not (isinstance(text, str) and text.strip())]
    if not faults and len(set(texts)) != len(texts):
        faults.append("names a continuation twice")
    return faults


def _name(item: Any, number: int) -> str:
    named = isinstance(item, Mapping) and isinstance(item.get("id"), str) and item["id"].strip()
    return str(item["id"]) if named else f"item {number}"
