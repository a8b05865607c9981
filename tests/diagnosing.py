"""The diagnose stage as tests need it, with its controls made first."""

from pathlib import Path

from saeops.adapters.models import load_random_model
from saeops.params import ModelParams, Params
from saeops.ports import LanguageModel, Watch
from saeops.refs import Workspace
from saeops.stages import controls, diagnose
from saeops.stages.diagnose import Diagnosed
from tests.tiny import RecordingWatch


def with_controls(
    params: Params, space: Workspace, model: LanguageModel, model_folder: Path, watch: Watch | None = None
) -> Diagnosed:
    """Controls as params want them, and diagnostics beside them."""
    watch = watch or RecordingWatch()

    def random_model() -> LanguageModel:
        chosen = ModelParams(ref=str(model_folder), device="cpu")
        return load_random_model(chosen, Path("unused"), seed=params.seed)

    controls.run(params, space, random_model=random_model, watch=RecordingWatch())
    return diagnose.run(params, space, model=model, random_model=random_model, watch=watch)


def without_controls(
    params: Params, space: Workspace, model: LanguageModel, watch: Watch | None = None
) -> Diagnosed:
    """Diagnostics with every control that takes training switched off."""

    def random_model() -> LanguageModel:
        raise AssertionError("no control asks for it")

    off = params.controls.model_copy(update={"random_model_tokens": 0, "seeds": 0})
    params = params.model_copy(update={"controls": off})
    controls.run(params, space, random_model=random_model, watch=RecordingWatch())
    return diagnose.run(params, space, model=model, random_model=random_model, watch=watch or RecordingWatch())
