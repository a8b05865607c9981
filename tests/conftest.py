"""Fixtures that every room's tests share."""

import os

# Before anything imports transformers or torch: no hub, and no threads fighting over two cores.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "2")

from pathlib import Path

import pytest
import torch

from tests.tiny import RecordingWatch, save_tiny_model, write_tiny_corpus

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny Llama (3 layers, d_model 32) with its tokenizer."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of about 80 short English documents."""
    return write_tiny_corpus(tmp_path_factory.mktemp("corpora") / "topics")


@pytest.fixture
def watch() -> RecordingWatch:
    return RecordingWatch()
