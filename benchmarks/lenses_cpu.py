"""The results table of recipes/lenses_cpu.yaml: python benchmarks/lenses_cpu.py --data DIR --out FOLDER

Pretrains with several seeds, evaluates each run by kNN, linear probe, ridge and fine-tuning next to the same network
untrained, raw pixels and training from scratch, and writes FOLDER/table.md: mean and standard deviation over all runs
and three draws of labels each. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from ssl_lens.evaluation.table import read_rows

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "lenses_cpu.yaml"
SPLIT = ROOT / "recipes" / "splits" / "deeplense_binary_eval.txt"
FEW, ALL = ["--labels-per-class", "10", "100"], ["--labels-per-class", "all"]
RINGS = ["--pooling", "rings", "--bf16"]
EVALUATIONS = {  # name of the results: command, its arguments, those for the first run only (they know no pretraining)
    "frozen": (
        "evaluate",
        [*FEW, "all", "--seeds", "3", "--untrained", "--probes", "knn", "linear", "ridge", "--whiten", "64"],
        ["--pixels"],
    ),
    "finetune": ("finetune", [*FEW, "--seeds", "3", *RINGS], ["--scratch"]),
    "finetune_all": ("finetune", [*ALL, "--seeds", "1", "--epochs", "8", *RINGS], ["--scratch"]),
}


def main() -> None:
    """Runs what is missing, then writes and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the DeepLense binary set: folders sub and no_sub")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    runs = [options.out / f"seed{seed}" for seed in range(options.seeds)]
    for seed, run in enumerate(runs):
        pretrain = [f"seed={seed}", f"data.path={options.data}", f"run.folder={run}", "run.resume=auto"]
        pretrain += [f"data.exclude={SPLIT}"]  # the fifth that every evaluation judges by
        _python("pretrain.py", RECIPE, *pretrain)
        for name, (command, arguments, first_run_only) in EVALUATIONS.items():
            out = run / "eval" / name
            if not (out / "report.md").is_file():
                common = ["--data", options.data, "--split", SPLIT, "--out", out]
                _python("-m", "ssl_lens", command, run, *common, *arguments, *(first_run_only if seed == 0 else []))
    table = "\n".join(
        ["| probe | target | labels per class | accuracy | macro AUC | runs x draws |", "|---|---|---|---|---|---|"]
    )
    table += "".join(f"\n{row}" for name in EVALUATIONS for row in _rows(name, runs))
    (options.out / "table.md").write_text(table + "\n", encoding="utf-8")
    print(table)


def _python(*arguments: object) -> None:
    subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, check=True)


def _rows(name: str, runs: list[Path]) -> list[str]:
    """One line of the table per probe, target and number of labels."""
    figures: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for run in runs:
        for row in read_rows(run / "eval" / name):
            if row.metric in ("accuracy", "auc"):
                key = row.probe, "pretrained" if row.target == run.name else row.target, row.labels
                figures.setdefault(key, {"accuracy": [], "auc": []})[row.metric].append(row.value)
    lines = []
    for (probe, target, labels), values in figures.items():
        accuracy, auc = (_with_spread(values[metric]) for metric in ("accuracy", "auc"))
        lines.append(f"| {probe} | {target} | {labels} | {accuracy} | {auc} | {len(values['auc'])} |")
    return lines


def _with_spread(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


if __name__ == "__main__":
    main()
