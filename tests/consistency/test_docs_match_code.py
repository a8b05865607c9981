"""Docs are checked: what they name must exist, and what exists must be named."""

import re
import subprocess
import sys
from pathlib import Path

import typer.main
import yaml

from saeops import errors
from saeops.cli import app
from saeops.params import Params

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
STAGES = ["harvest", "train", "controls", "diagnose", "label", "bench", "bundle"]


def verbs(group: typer.main.TyperGroup | None = None, prefix: str = "") -> set[str]:
    found: set[str] = set()
    command = group or typer.main.get_command(app)
    for name, child in command.commands.items():  # type: ignore[attr-defined]
        if hasattr(child, "commands"):
            found |= verbs(child, f"{prefix}{name} ")
        else:
            found.add(prefix + name)
    return found


def test_every_verb_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    missing = {verb for verb in verbs() if f"saeops {verb}" not in text}
    assert not missing, f"README.md does not name: {sorted(missing)}"


def test_every_command_in_the_docs_exists() -> None:
    known = verbs() | {verb.split()[0] for verb in verbs()}
    for page in PAGES:
        for match in re.finditer(r"`saeops ([a-z-]+)( [a-z]+)?", page.read_text()):
            assert match[1] in known, f"{page.name}: `saeops {match[1]}` is no command"


def test_every_make_target_in_the_docs_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"`make ([a-z-]+)", page.read_text()):
            assert target in targets, f"{page.name}: `make {target}` is no target"


def test_stages_are_called_the_same_everywhere() -> None:
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    assert list(pipeline["stages"]) == STAGES
    for stage in STAGES:
        assert stage in verbs()
        assert (ROOT / "tasks" / f"{stage}.py").exists()
        assert (ROOT / "saeops" / "stages" / f"{stage}.py").exists()
    sections = set(Params.model_fields)
    assert set(STAGES) - {"bundle"} <= sections


def test_params_yaml_has_every_section() -> None:
    assert set(yaml.safe_load((ROOT / "params.yaml").read_text())) == set(Params.model_fields)


def test_every_param_is_explained() -> None:
    from saeops.cli.look import described

    silent = [path for path, _, meaning in described(Params()) if not meaning]
    assert not silent, f"no docstring: {silent}"


def test_the_error_tree_in_the_docstring_is_the_real_one() -> None:
    real = {
        cls.__name__
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.SaeopsError)
    }
    tree = (errors.__doc__ or "").split("\n\n", 1)[1]
    drawn = set(re.findall(r"^[ │├└─]*([A-Z]\w+) ", tree, re.MULTILINE))
    assert drawn == real


def test_links_in_the_docs_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} → {target}"


def test_the_top_verbs_start_without_heavy_imports() -> None:
    heavy = ["torch", "pandas", "transformers", "mlflow", "matplotlib", "scipy", "prefect"]
    code = f"import sys, saeops, saeops.cli, saeops.services; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_no_registry_host_stands_in_the_lock() -> None:
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+", line), line


def test_dvc_was_not_silently_resolved_to_an_old_one() -> None:
    import importlib.metadata

    assert importlib.metadata.version("dvc").startswith("3.67.")
