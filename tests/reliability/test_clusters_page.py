"""The scripts of docs/clusters.md, run with a small run in the place of theirs."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLURM, LOOP = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "clusters.md").read_text(), re.DOTALL)

pytestmark = pytest.mark.reliability


def _start(runs, script: str, epochs: int) -> subprocess.Popen:
    """With this Python's command and a recipe of so many epochs; `scontrol` writes what it is asked for."""
    recipe = runs.recipe("a", epochs)
    tools = runs.root / "tools"
    tools.mkdir(exist_ok=True)
    for name, line in {
        "ssl-lens": f'{sys.executable} -m ssl_lens "$@"',
        "torchrun": f'{sys.executable} -m torch.distributed.run --master_port=29790 "$@"',
        "scontrol": f'echo "$@" >> {runs.root}/requeued',
    }.items():
        (tools / name).write_text(f"#!/bin/bash\nexec {line}\n" if name != "scontrol" else f"#!/bin/bash\n{line}\n")
        (tools / name).chmod(0o755)
    script = script.replace("esvit_equiv data.path", f"{recipe} data.path").replace(
        "--nproc_per_node=4", "--nproc_per_node=2"
    )
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "SSL_LENS_CACHE": str(runs.root / "cache"),
        "DATA": str(runs.root / "images"),
        "RUN": str(runs.folder("a")),
        "SLURM_JOB_ID": "7",
    }
    with (runs.root / "a.log").open("a") as log:
        return subprocess.Popen(["bash", "-c", script], cwd=ROOT, env=environment, stdout=log, stderr=log)


def test_the_loop_goes_on_through_preemptions(runs):
    """Every few seconds the run is ended, as a machine that is taken away; the end is that of one left alone."""
    loop = _start(runs, LOOP, epochs=40)
    for steps in (10, 40, 80):
        runs.wait_for_steps("a", steps)
        subprocess.run(
            ["pkill", "-TERM" if steps < 80 else "-KILL", "-f", f"ssl_lens pretrain {runs.root}"], check=True
        )
        time.sleep(1)
    loop.wait(200)
    assert runs.status("a")["state"] == "finished"
    assert runs.finish("whole", epochs=40) == 0
    assert runs.outcome("a") == runs.outcome("whole")


def test_the_slurm_script_saves_and_requeues(runs):
    job = _start(runs, SLURM, epochs=2000)
    runs.wait_for_steps("a", 5)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(60) == 0, runs.said("a")
    assert (runs.root / "requeued").read_text() == "requeue 7\n"
    step = runs.status("a")["step"]
    assert step >= 5
    job = _start(runs, SLURM, epochs=step // 3 + 1)
    assert job.wait(120) == 1  # of `grep`: nothing to requeue
    assert runs.status("a")["state"] == "finished"
    assert (runs.root / "requeued").read_text() == "requeue 7\n"
