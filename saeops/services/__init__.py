"""The one place where adapters meet stages: builds clients from settings, lends them to a stage.

Every verb and every task goes through here. Heavy modules are imported where
they are first used, so that `saeops status` never waits for torch.
"""

from saeops.services.changing import Changing
from saeops.services.looking import Looking
from saeops.services.stages import Stages

__all__ = ["Services"]


class Services(Stages, Looking, Changing):
    """Every verb, on one set of clients."""
