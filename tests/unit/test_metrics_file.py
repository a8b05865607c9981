from pathlib import Path

import pytest

from saeops.errors import FolderDamaged
from saeops.metrics import read_metrics


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_figure_that_is_no_number_is_refused(tmp_path: Path, number: str):
    path = tmp_path / "metrics.json"
    path.write_text(f'{{"l0": {{"point": {number}, "low": 0, "high": 1, "n": 9, "unit": "documents"}}}}')
    with pytest.raises(FolderDamaged, match="does not hold metrics"):
        read_metrics(path)
