"""Figures: the same figures give the same bytes, and matplotlib's global state stays untouched."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from saeops.diagnostics.figures import activation_figure, density_figure, l0_figure, position_figure, save_png
from saeops.diagnostics.sparsity import Firing, SparsityMeter
from saeops.sae.codes import Codes
from saeops.stats import Interval

L0 = Interval(3.0, 2.5, 3.5, 10, "documents")


@pytest.fixture(scope="module")
def firing() -> Firing:
    f_TF = torch.relu(torch.randn(200, 40, generator=torch.Generator().manual_seed(0)) - 1.3)
    meter = SparsityMeter(10, 40)
    meter.add(torch.arange(200) // 20, Codes.from_dense(f_TF))
    return meter.firing()


def test_equal_figures_give_equal_bytes_that_name_no_software(firing: Firing, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_png(density_figure(firing, dense_above=0.1), tmp_path / name)
    data = (tmp_path / "a.png").read_bytes()
    assert data == (tmp_path / "b.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert b"Software" not in data


def test_every_figure_has_a_title_and_both_axes_named(firing: Firing) -> None:
    for figure in (
        density_figure(firing, dense_above=0.1),
        l0_figure(firing, L0),
        position_figure(np.array([np.nan, 0.4, 0.8]), L0),
    ):
        (axes,) = figure.axes
        assert axes.get_title(loc="left")
        assert axes.get_xlabel()
        assert axes.get_ylabel()


def test_each_drawn_latent_gets_a_histogram_of_its_own(firing: Firing) -> None:
    figure = activation_figure(firing, [0, 3, 7, 8, 9])
    titles = [axes.get_title() for axes in figure.axes if axes.axison]
    assert titles[0] == f"latent 0 · {firing.n_active_F[0]} tokens"
    assert len(titles) == 5


def test_a_dictionary_in_which_nothing_lives_can_still_be_drawn(tmp_path: Path) -> None:
    meter = SparsityMeter(2, 4)
    meter.add(torch.tensor([0, 1]), Codes.from_dense(torch.zeros(2, 4)))
    dead = meter.firing()
    save_png(density_figure(dead, dense_above=0.1), tmp_path / "densities.png")
    save_png(l0_figure(dead, Interval(0.0, None, None, 2, "documents")), tmp_path / "l0.png")
    save_png(activation_figure(dead, []), tmp_path / "activations.png")


def test_pyplot_is_never_imported() -> None:
    code = "import sys, saeops.diagnostics.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
