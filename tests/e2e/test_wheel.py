"""The wheel: only saeops is in it, and it works in an empty environment."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    source.mkdir()
    # Built from a copy, so that no build folder is left in the checkout.
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.splitlines():
        if name.startswith("saeops/") or name in ("pyproject.toml", "README.md"):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_only_saeops_goes_into_the_wheel(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"saeops", "saeops-0.1.0.dist-info"}
    names = zipfile.ZipFile(wheel).namelist()
    assert "saeops/interventions/panel.yaml" in names
    assert any(name.startswith("saeops/report/") and name.endswith(".jinja") for name in names)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_empty_environment_with_the_wheel_shows_help(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "empty"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    # The lock bounds what pip may choose: an unbounded torch takes gigabytes of CUDA packages.
    install = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "requirements.lock"), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=800)
    told = subprocess.run([home / "bin" / "saeops", "--help"], capture_output=True, text=True, check=True)
    assert "harvest" in told.stdout
    assert "rollback" in told.stdout
    load = subprocess.run(
        [python, "-c", "import saeops; print(saeops.load)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert "function load" in load.stdout
