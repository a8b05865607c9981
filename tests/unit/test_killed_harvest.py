"""A harvest killed by the system, anywhere, goes on from its finished shards to the same bytes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from saeops.activations.reader import ActivationSet
from saeops.adapters.models import TransformersModel
from saeops.sealed import verify
from tests.unit.test_harvest import Watched, run

# Forks before torch has started any thread, and kills each child at its n-th fsync: in the middle
# of a write, with the temporary file on the disk and not yet renamed.
DRIVER = """
import json, os, signal, sys
from pathlib import Path
from saeops.adapters.models import load_model
from saeops.params import ModelParams
from tests.unit.test_harvest import run

spaces, model_folder, texts, kills = json.loads(sys.argv[1])
for space, kill in zip(spaces, kills, strict=True):
    child = os.fork()
    if child == 0:
        real, left = os.fsync, [kill]
        def fsync(descriptor):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            real(descriptor)
        os.fsync = fsync
        model = load_model(ModelParams(ref=model_folder, device="cpu"), Path("unused"))
        run(Path(space), Path(texts), model)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def fsyncs(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path, tiny_model: TransformersModel) -> int:
    """How often an unbroken harvest calls fsync."""
    calls, real = [0], os.fsync

    def fsync(descriptor: int) -> None:
        calls[0] += 1
        real(descriptor)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        run(tmp_path_factory.mktemp("counted"), tiny_corpus, tiny_model)
    return calls[0]


@pytest.mark.slow
def test_a_killed_harvest_keeps_its_finished_shards_and_ends_with_the_same_bytes(
    tmp_path: Path,
    tiny_model_folder: Path,
    tiny_corpus: Path,
    tiny_model: TransformersModel,
    tiny_activations: ActivationSet,
    fsyncs: int,
) -> None:
    # While choosing documents, while writing shards, while sealing, and while publishing.
    kills = [1, 9, 30, fsyncs // 2, fsyncs - 5, fsyncs - 1, fsyncs]
    spaces = [tmp_path / f"killed-{kill}" for kill in kills]
    arguments = json.dumps([[str(s) for s in spaces], str(tiny_model_folder), str(tiny_corpus), kills])
    done = subprocess.run([sys.executable, "-c", DRIVER, arguments], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(-signal.SIGKILL)] * len(kills), done.stderr

    unbroken = Watched(tiny_model)
    run(tmp_path / "unbroken", tiny_corpus, unbroken)
    spent = []
    for space in spaces:
        model = Watched(tiny_model)
        ref = run(space, tiny_corpus, model)
        assert ref.digest == tiny_activations.sealed.digest
        verify(ref.path, kind="activations")
        assert not list((space / "artifacts" / ".work").iterdir())
        spent.append(model.passes)
    assert spent[0] == unbroken.passes
    assert spent == sorted(spent, reverse=True)
    assert 0 < spent[3] < 0.7 * unbroken.passes
    assert spent[-1] == spent[-2] == 0
