"""Where everything lies in the object store. Normative: docs/formats/journal.md.

bundles/<digest>/…                      immutable; manifest.json is written last
names/<name>/champion.json              the pointer, moved by compare-and-swap only
names/<name>/journal/<seq>.json         what was meant to happen (written first, never changed)
names/<name>/journal/<seq>.closed.json  what became of it (written last, never changed)
names/<name>/pins.json                  versions that may not become champion again
names/<name>/verdicts/<digest>.json     what the judge saw and said
names/<name>/audits/<when>-<digest8>.json    what an audit found; never changed
names/<name>/models/<model digest>.json      a model version that was seen; written once
names/<name>/retraining.json                 who retrains, and what became of the last time; compare-and-swap
names/<name>/incidents/<id>.json             what people were alerted of; compare-and-swap
removals/<digest>.json                  a bundle that retention removes, or removed
recipes/<digest>.json                   what it takes to build a bundle again (never changed)
"""

import re

from pydantic import TypeAdapter, ValidationError

from saeops.errors import NameUnknown
from saeops.refs import DictionaryName

_NAME = TypeAdapter(DictionaryName)
_ENTRY = re.compile(r"(\d{8})(\.closed)?\.json")
_AUDIT = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}\.json")
_OF_NAME = re.compile(r"names/(.+)/(?:champion\.json|pins\.json|journal/\d{8}(?:\.closed)?\.json)")
_OF_BUNDLE = re.compile(r"bundles/([0-9a-f]{64})/.+")


def check_name(name: str) -> str:
    """The name, if a dictionary can be called that.

    Raises:
        NameUnknown: it cannot.
    """
    try:
        return _NAME.validate_python(name)
    except ValidationError as error:
        raise NameUnknown(
            f"{name!r} is not a dictionary's name",
            hint="write model-family/site, e.g. smollm2-135m/blocks.10.resid_post; `saeops status` lists names",
        ) from error


def bundle_key(digest: str, file: str = "") -> str:
    return f"bundles/{digest}/{file}"


def champion_key(name: str) -> str:
    return f"names/{check_name(name)}/champion.json"


def pins_key(name: str) -> str:
    return f"names/{check_name(name)}/pins.json"


def verdict_key(name: str, digest: str) -> str:
    return f"names/{check_name(name)}/verdicts/{digest}.json"


def audits_prefix(name: str) -> str:
    return f"names/{check_name(name)}/audits/"


def audit_key(name: str, at: str, digest: str) -> str:
    """Of an audit made at an ISO-8601 moment in UTC: keys sort by time.

    Args:
        digest: of the record's bytes; two audits in one second stay apart.
    """
    when = re.sub(r"[^0-9T]", "", at.partition("+")[0].partition(".")[0])
    return f"{audits_prefix(name)}{when}Z-{digest[:8]}.json"


def audits_among(keys: list[str], name: str) -> list[str]:
    """The keys of a name's audits, oldest first, given every key under its `audits/`."""
    return sorted(key for key in keys if _AUDIT.fullmatch(key.removeprefix(audits_prefix(name))))


def models_prefix(name: str) -> str:
    return f"names/{check_name(name)}/models/"


def model_key(name: str, digest: str) -> str:
    return f"{models_prefix(name)}{digest}.json"


def retraining_key(name: str) -> str:
    return f"names/{check_name(name)}/retraining.json"


def incidents_prefix(name: str) -> str:
    return f"names/{check_name(name)}/incidents/"


def incident_key(name: str, incident: str) -> str:
    return f"{incidents_prefix(name)}{incident}.json"


def plain_among(keys: list[str], prefix: str) -> list[str]:
    """The objects right under a prefix: a name may go on where another's folder begins."""
    return sorted(key for key in keys if key.startswith(prefix) and "/" not in key.removeprefix(prefix))


def journal_prefix(name: str) -> str:
    return f"names/{check_name(name)}/journal/"


def entry_key(name: str, sequence: int) -> str:
    return f"{journal_prefix(name)}{sequence:08d}.json"


def closing_key(name: str, sequence: int) -> str:
    return f"{journal_prefix(name)}{sequence:08d}.closed.json"


def removal_key(digest: str) -> str:
    return f"removals/{digest}.json"


def recipe_key(digest: str) -> str:
    return f"recipes/{digest}.json"


def with_recipe(keys: list[str]) -> set[str]:
    """Digests of the bundles that have a recipe, given every key under `recipes/`."""
    return {key.removeprefix("recipes/").removesuffix(".json") for key in keys}


def last_sequence(keys: list[str], name: str) -> int:
    """The highest sequence number among the keys of a journal; 0 where there is none."""
    files = (key.removeprefix(journal_prefix(name)) for key in keys)
    return max((int(match[1]) for file in files if (match := _ENTRY.fullmatch(file))), default=0)


def names_among(keys: list[str]) -> list[str]:
    """The names that have a pointer, given every key under `names/`."""
    pointers = (key for key in keys if key.endswith("/champion.json"))
    return [key.removeprefix("names/").removesuffix("/champion.json") for key in pointers]


def all_names(keys: list[str]) -> list[str]:
    """Every name that has a pointer, a journal or pins, given every key under `names/`."""
    return sorted({match[1] for key in keys if (match := _OF_NAME.fullmatch(key))})


def stored_bundles(keys: list[str]) -> dict[str, list[str]]:
    """Digest → keys of its files, given every key under `bundles/`."""
    found: dict[str, list[str]] = {}
    for key in keys:
        if match := _OF_BUNDLE.fullmatch(key):
            found.setdefault(match[1], []).append(key)
    return found
