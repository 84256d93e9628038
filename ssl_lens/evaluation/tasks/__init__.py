"""All tasks by name: a task is a file here and a line below."""

from __future__ import annotations

from collections.abc import Sequence

from ssl_lens.errors import InputError
from ssl_lens.evaluation.tasks.anomaly import Anomaly
from ssl_lens.evaluation.tasks.classification import Classification
from ssl_lens.evaluation.tasks.regression import Regression
from ssl_lens.evaluation.tasks.retrieval import Retrieval
from ssl_lens.evaluation.tasks.rotation import Rotation
from ssl_lens.evaluation.tasks.task import Task

TASKS: dict[str, Task] = {
    "classification": Classification(),
    "regression": Regression(),
    "anomaly": Anomaly(),
    "retrieval": Retrieval(),
    "rotation": Rotation(),
}


def tasks_named(names: Sequence[str]) -> list[Task]:
    """Tasks by name, each once.

    Raises: InputError if there is no such task.
    """
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise InputError(f"task {unknown[0]} is unknown; there are {', '.join(TASKS)}")
    return [TASKS[name] for name in dict.fromkeys(names)]
