"""When trying again can help: something outside did not answer. Never on what a person must mend."""

import sys
from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from saeops.errors import DiskFull, StoreDenied, Unavailable

RETRIES = 2
DELAYS_S = [5, 30]
MINUTE_S = 60


def worth_retrying(task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed task may meet a better world next time; says so, as Prefect's own lines are not shown."""
    error = state.result(raise_on_failure=False)
    if not isinstance(error, Unavailable) or isinstance(error, (DiskFull, StoreDenied)):
        return False
    sys.stderr.write(f"{task.name}: {error.message}; trying again soon\n")
    return True


RETRIED: dict[str, Any] = {
    "retries": RETRIES,
    "retry_delay_seconds": DELAYS_S,
    "retry_condition_fn": worth_retrying,
}
"""For tasks that reach outside this machine: a model's download, an endpoint, a remote, a tracker."""
