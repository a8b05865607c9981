"""MLflow: runs to look at. MLflow is imported when a client is first needed: it takes seconds.

`NullTracker` is the fake, and serves where tracking is off.
"""

import contextlib
import importlib.util
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saeops.digests import digest_json
from saeops.errors import ToolMissing, TrackerUnreachable
from saeops.files import explained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Limits of MLflow's own tables.
MAX_PARAM_CHARS = 6000
MAX_PARAMS_A_BATCH = 100
MAX_DATASET_DIGEST_CHARS = 36

FLUSH_POINTS = 200
FLUSH_AFTER_S = 3.0

_SQLITE = "sqlite:///"


class Connection:
    """One tracking address: the client, and the experiment that runs go to.

    Args:
        uri: MLflow's tracking address (`sqlite:///…`, `http://…`).
        experiment: made when it is not there yet.
        artifacts: where an embedded (SQLite) tracker keeps files; a server knows its own place.
    """

    def __init__(self, uri: str, experiment: str, *, artifacts: Path) -> None:
        self.uri = uri
        self._experiment = experiment
        self._artifacts = artifacts

    @property
    def embedded(self) -> bool:
        """MLflow works in this process, on a SQLite file, without a server."""
        return self.uri.startswith(_SQLITE)

    @cached_property
    def client(self) -> Any:
        """MLflow's client.

        Raises:
            ToolMissing: mlflow is not installed.
            TrackerUnreachable: nothing answers at the address.
        """
        _prepare()
        from mlflow import MlflowClient

        if self.embedded:
            folder = Path(self.uri.removeprefix(_SQLITE)).parent
            with explained(folder):
                folder.mkdir(parents=True, exist_ok=True)
        with self.answering():
            return MlflowClient(self.uri, registry_uri=self.uri)

    @cached_property
    def experiment_id(self) -> str:
        with self.answering():
            found = self.client.get_experiment_by_name(self._experiment)
            if found is not None:
                return str(found.experiment_id)
            location = self._artifacts.resolve().as_uri() if self.embedded else None
            return str(self.client.create_experiment(self._experiment, artifact_location=location))

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Turn whatever MLflow raises into one error that says what to do."""
        _prepare()
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            raise TrackerUnreachable(
                f"MLflow at {self.uri}: {str(error).splitlines()[0]}",
                hint="start it, mend SAEOPS_TRACKING, or set SAEOPS_TRACKING=none; finished work is kept",
            ) from error


def _prepare() -> None:
    """What must be said to MLflow before its first import: be quiet, phone nobody.

    Raises:
        ToolMissing: mlflow is not installed.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise ToolMissing(
            "mlflow is not installed", hint="pip install 'saeops[mlflow]', or set SAEOPS_TRACKING=none"
        )
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    # MLflow's own seven retries keep a person waiting for minutes before they hear that nobody answers.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    logging.getLogger("alembic").setLevel(logging.ERROR)


class TrackedRun:
    """One run in MLflow. Metrics are gathered and sent a few seconds apart."""

    def __init__(self, connection: Connection, run_id: str) -> None:
        self.run_id: str | None = run_id
        self._id = run_id
        self._connection = connection
        self._pending: list[tuple[str, float, int, int]] = []
        self._sent = time.monotonic()

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        now_ms = int(time.time() * 1000)
        self._pending += [(name, float(value), now_ms, step or 0) for name, value in values.items()]
        if len(self._pending) >= FLUSH_POINTS or time.monotonic() - self._sent >= FLUSH_AFTER_S:
            self.flush()

    def flush(self) -> None:
        """Send what has been gathered."""
        from mlflow.entities import Metric

        points, self._pending = self._pending, []
        self._sent = time.monotonic()
        with self._connection.answering():
            for start in range(0, len(points), FLUSH_POINTS):
                batch = [Metric(*point) for point in points[start : start + FLUSH_POINTS]]
                self._connection.client.log_batch(self._id, metrics=batch)

    def figure(self, name: str, figure: "Figure") -> None:
        with self._connection.answering():
            self._connection.client.log_figure(self._id, figure, f"figures/{name}.png")

    def file(self, path: Path) -> None:
        with self._connection.answering():
            self._connection.client.log_artifact(self._id, str(path))

    def tag(self, name: str, value: str) -> None:
        with self._connection.answering():
            self._connection.client.set_tag(self._id, name, value)


class MlflowTracker:
    """Runs in MLflow: one a stage, under one a build."""

    def __init__(self, uri: str, experiment: str, *, artifacts: Path) -> None:
        self._connection = Connection(uri, experiment, artifacts=artifacts)

    @contextlib.contextmanager
    def run(
        self,
        stage: str,
        *,
        parent: str | None = None,
        params: Mapping[str, Any] | None = None,
        inputs: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Iterator[TrackedRun]:
        """A run that ends FINISHED, FAILED (an error) or KILLED (an interrupt).

        Args:
            parent: id of the build's run.
            params: nested params; logged flat (`train.k`).
            inputs: kind → digest of each data set the stage reads.

        Raises:
            TrackerUnreachable: MLflow does not answer.
        """
        self._bury_the_dead()
        run = self._open(stage, parent, params or {}, inputs or {}, tags or {})
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        except Exception:
            raise
        except BaseException:
            status = "KILLED"
            raise
        finally:
            self._close(run, status)

    def _open(
        self,
        stage: str,
        parent: str | None,
        params: Mapping[str, Any],
        inputs: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> TrackedRun:
        from mlflow.entities import Param

        client, experiment = self._connection.client, self._connection.experiment_id
        every_tag = {
            **tags,
            "saeops.stage": stage,
            "saeops.inputs": digest_json(dict(inputs)),
            "saeops.process": f"{socket.gethostname()}:{os.getpid()}",
            **({"mlflow.parentRunId": parent} if parent else {}),
        }
        with self._connection.answering():
            run_id = client.create_run(experiment, run_name=stage, tags=every_tag).info.run_id
            flat = [Param(name, value) for name, value in flatten(params).items()]
            for start in range(0, len(flat), MAX_PARAMS_A_BATCH):
                client.log_batch(run_id, params=flat[start : start + MAX_PARAMS_A_BATCH])
            if inputs:
                client.log_inputs(run_id, _datasets(inputs))
        return TrackedRun(self._connection, run_id)

    def _close(self, run: TrackedRun, status: str) -> None:
        # The stage's own error must stay the one that is seen, even when MLflow went away with it.
        quietly = contextlib.suppress(TrackerUnreachable) if status != "FINISHED" else contextlib.nullcontext()
        with quietly, self._connection.answering():
            run.flush()
            self._connection.client.set_terminated(run.run_id, status)

    def _bury_the_dead(self) -> None:
        """Mark runs KILLED whose process was killed too hard to say so itself."""
        connection = self._connection
        with connection.answering():
            for run in connection.client.search_runs([connection.experiment_id], "attributes.status = 'RUNNING'"):
                host, _, pid = run.data.tags.get("saeops.process", "").rpartition(":")
                if host == socket.gethostname() and not _alive(int(pid)):
                    connection.client.set_terminated(run.info.run_id, "KILLED")


def flatten(section: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested params as `{"train.k": "32"}`, each value cut to what MLflow takes."""
    flat: dict[str, str] = {}
    for name, value in section.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            flat[f"{prefix}{name}"] = text[:MAX_PARAM_CHARS]
    return flat


def _datasets(inputs: Mapping[str, str]) -> Sequence[Any]:
    from mlflow.entities import Dataset, DatasetInput

    return [
        DatasetInput(
            Dataset(
                name=kind,
                digest=digest[:MAX_DATASET_DIGEST_CHARS],
                source_type="saeops",
                source=json.dumps({"kind": kind, "sha256": digest}),
            )
        )
        for kind, digest in inputs.items()
    ]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class _NullRun:
    run_id: str | None = None

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        pass

    def figure(self, name: str, figure: "Figure") -> None:
        pass

    def file(self, path: Path) -> None:
        pass

    def tag(self, name: str, value: str) -> None:
        pass


class NullTracker:
    """Tracks nothing: where tracking is off, and in tests."""

    @contextlib.contextmanager
    def run(
        self,
        stage: str,
        *,
        parent: str | None = None,
        params: Mapping[str, Any] | None = None,
        inputs: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Iterator[_NullRun]:
        yield _NullRun()
