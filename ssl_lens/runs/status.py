"""What a run says of itself for schedulers and people, since launchers turn every exit status into 1."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Literal, get_args

from ssl_lens.errors import InputError
from ssl_lens.files import read_json, whole_file

State = Literal["running", "stopped", "finished", "failed"]


def write_status(file: Path, state: State, *, step: int | None, reason: str = "") -> None:
    """Writes `{"state", "step", "reason", "time"}`.

    Args:
        step: of the newest checkpoint; None before the first.
        reason: why it stopped or failed, one line.

    Raises: OSError if it cannot.
    """
    record = {"state": state, "step": step, "reason": reason, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    with whole_file(file) as temporary:
        temporary.write_text(json.dumps(record) + "\n", encoding="utf-8")


def read_status(file: Path) -> dict[str, Any] | None:
    """What was written last; None if nothing whole was."""
    try:
        record = read_json(file)
    except InputError:
        return None
    return record if record.get("state") in get_args(State) else None
