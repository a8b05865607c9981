"""docs/metrics.md is normative: it and the registries say the same, and nothing is declared out of its sight."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import saeops
from saeops.metrics import Metric
from saeops.report.declared import DECLARED

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
COLUMNS = ["metric", "formula", "unit", "better", "range", "interval", "source"]


def documented() -> dict[str, tuple[str, dict[str, str]]]:
    """Metric name → its section's title and its row's cells by column."""
    found = {}
    section = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        if line.startswith("| `"):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            row = dict(zip(COLUMNS, cells, strict=True))
            name = row["metric"].strip("`")
            assert name not in found, f"{name} is documented twice"
            found[name] = (section, row)
    return found


def declared() -> dict[str, tuple[str, Metric[Any]]]:
    """Metric name → the group it is shown in and its declaration."""
    return {metric.name: (group.title, metric) for group in DECLARED for metric in group.metrics}


def registries() -> Iterator[tuple[str, dict[str, Metric[Any]]]]:
    for room in pkgutil.iter_modules(saeops.__path__, "saeops."):
        module = importlib.import_module(room.name)
        if room.ispkg and any(m.name == "metrics" for m in pkgutil.iter_modules(module.__path__)):
            yield room.name, importlib.import_module(f"{room.name}.metrics").METRICS


def test_the_page_and_the_code_name_the_same_metrics() -> None:
    page, code = documented().keys(), declared().keys()
    assert page == code, f"only in the page: {sorted(page - code)}; only in the code: {sorted(code - page)}"


def test_every_rooms_registry_is_declared_to_readers() -> None:
    rooms = dict(registries())
    assert rooms.keys() >= {"saeops.diagnostics", "saeops.labelling", "saeops.interventions"}
    known = declared()
    for room, metrics in rooms.items():
        for name, metric in metrics.items():
            assert name in known, f"{room}: {name} is in no group"
            assert known[name][1] == metric, f"{room}: {name} is declared twice, differently"


def test_formula_unit_direction_range_and_source_agree() -> None:
    page = documented()
    for name, (group, metric) in declared().items():
        section, row = page[name]
        assert section == group, name
        said = (row["formula"], row["unit"], row["better"], row["range"], row["source"])
        assert said == (metric.formula, metric.unit, metric.better, metric.range, metric.source), name


def test_every_row_states_its_range_and_interval() -> None:
    for name, (_, row) in documented().items():
        assert re.fullmatch(r"[\[(].+, .+[\])]", row["range"]), name
        assert row["interval"], name


def test_every_section_states_its_masks() -> None:
    sections = PAGE.read_text().split("\n## ")[1:]
    for section in sections:
        assert "**Masks.**" in section, section.splitlines()[0]
