"""One Prefect server for all flow tests, with a home of its own."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.server import quiet_environment

# Prefect reads these when it is first imported, by the first test module.
_HOME = tempfile.TemporaryDirectory(prefix="prefect-home-")
os.environ["PREFECT_HOME"] = _HOME.name
quiet_environment()

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """The address of a server that lives as long as the session."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield str(PREFECT_API_URL.value())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout as far as params go."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path
