"""The one place where adapters meet stages: builds clients from settings, lends them to a stage.

Every verb and every task goes through here. Heavy modules are imported where
they are first used, so that `saeops status` never waits for torch.
"""

import datetime
import fcntl
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from saeops.errors import LostRace
from saeops.files import explained
from saeops.params import CorpusParams, ModelParams, Params
from saeops.ports import (
    Corpus,
    DataVersions,
    LanguageModel,
    Llm,
    ObjectStore,
    RegistryProjection,
    ReviewLedger,
    Watch,
)
from saeops.refs import Ref, Workspace
from saeops.settings import Settings

if TYPE_CHECKING:
    from saeops.adapters.mlflow import MlflowTracker, NullTracker


class Services:
    """Everything a stage needs from the world, built once and on demand.

    Args:
        settings: addresses and secrets.
        parent_run: tracker run under which stages log, for flows.
        quiet: no bars and no lines (for `--json`).
    """

    def __init__(self, settings: Settings, *, parent_run: str | None = None, quiet: bool = False) -> None:
        self.settings = settings
        self.space = Workspace(root=settings.root)
        self.parent_run = parent_run
        self._quiet = quiet
        self._models: dict[ModelParams, LanguageModel] = {}
