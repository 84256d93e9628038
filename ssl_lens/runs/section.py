"""The section `run` of a recipe."""

from __future__ import annotations

from typing import Literal

from ssl_lens.section import Auto, Count, Section


class Run(Section):
    """Where the run lives and what it writes; cpu_threads: of each process, null for an even share of the cores."""

    folder: Auto | str = "auto"
    resume: Literal["never", "auto"] = "never"
    device: Auto | Literal["cpu"] = "auto"
    cpu_threads: Count | None = None
    checkpoint_epochs: Count = 1
    keep_checkpoints: Count = 2
    log_steps: Count = 10
    wandb_project: str | None = None
