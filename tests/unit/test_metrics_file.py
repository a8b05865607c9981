from pathlib import Path

import pytest

from saeops.errors import FolderDamaged
from saeops.metrics import Metric, measure_all, read_metrics
from saeops.stats import Bootstrap, Interval


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_figure_that_is_no_number_is_refused(tmp_path: Path, number: str):
    path = tmp_path / "metrics.json"
    path.write_text(f'{{"l0": {{"point": {number}, "low": 0, "high": 1, "n": 9, "unit": "documents"}}}}')
    with pytest.raises(FolderDamaged, match="does not hold metrics"):
        read_metrics(path)


@pytest.mark.parametrize(
    ("limits", "low", "high"),
    [
        ("[0, 1]", 0.0, 1.0),
        ("(−∞, 1]", -0.2, 1.0),
        ("[0, ∞)", 0.0, 1.3),
        ("[−1, 1]", -0.2, 1.0),
        ("[0, d_sae]", 0.0, 1.3),
    ],
)
def test_no_interval_reaches_beyond_what_the_metric_can_be(limits: str, low: float, high: float):
    wide = Interval(0.5, -0.2, 1.3, 9, "documents")
    metric: Metric[None] = Metric("share", "1", "higher", "a / b", "saeops", limits, lambda *_: wide)
    found = measure_all([metric], None, Bootstrap(100, 0))["share"]
    assert (found.low, found.point, found.high) == (low, 0.5, high)
