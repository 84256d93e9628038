"""The section `run` of a recipe."""

from __future__ import annotations

from typing import Literal

from ssl_lens.section import Auto, Count, Section


class Run(Section):
    """Where the run lives and what it writes.

    resume: never; auto, to continue what is in the folder; restart, to move that aside and begin anew. cpu_threads: of
    each process, null for an even share of the cores, or what a resumed run had. rank_timeout_s: how long processes
    wait for one that does not answer. compile: networks by torch.compile; auto, on a GPU alone. checkpointing: of each
    block of the network keep only what it is given, and compute it again in backward: for networks too large for the
    memory, at a third more products.
    """

    folder: Auto | str = "auto"
    resume: Literal["never", "auto", "restart"] = "never"
    device: Auto | Literal["cpu"] = "auto"
    compile: Auto | bool = "auto"
    cpu_threads: Count | None = None
    rank_timeout_s: Count = 1800
    checkpointing: bool = False
    checkpoint_epochs: Count = 1
    keep_checkpoints: Count = 2
    log_steps: Count = 10
    wandb_project: str | None = None
