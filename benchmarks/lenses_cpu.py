"""The results table of recipes/lenses_cpu.yaml: python benchmarks/lenses_cpu.py --data DIR --out FOLDER

Pretrains with several seeds, evaluates each run by kNN, linear probe and fine-tuning beside the same network untrained,
raw pixels and training from scratch, and writes FOLDER/table.md: mean and standard deviation over all runs and three
draws of labels each. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "lenses_cpu.yaml"
SPLIT = ROOT / "recipes" / "splits" / "deeplense_binary_eval.txt"
FEW, ALL = ["--labels-per-class", "10", "100"], ["--labels-per-class", "all"]
RINGS = ["--pooling", "rings", "--bf16"]
EVALUATIONS = {  # name of the results: script, its arguments, those for the first run only (they know no pretraining)
    "knn": ("knn", [*FEW, "all", "--seeds", "3", "--untrained", "--whiten", "64"], ["--pixels"]),
    "linear_probe": ("linear_probe", [*FEW, "all", "--seeds", "3", "--untrained"], ["--pixels"]),
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
        for name, (script, arguments, first_run_only) in EVALUATIONS.items():
            out = run / "eval" / name
            if not (out / "results.csv").is_file():
                common = ["--data", options.data, "--split", SPLIT, "--out", out]
                _python(f"eval/{script}.py", run, *common, *arguments, *(first_run_only if seed == 0 else []))
    table = "\n".join(
        ["| classifier | start | labels per class | accuracy | macro AUC | runs x draws |", "|---|---|---|---|---|---|"]
    )
    table += "".join(f"\n{row}" for name in EVALUATIONS for row in _rows(name, runs))
    (options.out / "table.md").write_text(table + "\n", encoding="utf-8")
    print(table)


def _python(script: str, *arguments: object) -> None:
    subprocess.run([sys.executable, script, *map(str, arguments)], cwd=ROOT, check=True)


def _rows(name: str, runs: list[Path]) -> list[str]:
    """One line of the table per method and number of labels."""
    figures: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for run in runs:
        with (run / "eval" / name / "results.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                key = row["method"].replace(run.name, "pretrained"), row["labels_per_class"]
                figures.setdefault(key, []).append((float(row["accuracy"]), float(row["macro_auc"])))
    lines = []
    for (method, labels), values in figures.items():
        spread = np.std(values, axis=0, ddof=1) if len(values) > 1 else (None, None)
        accuracy, auc = map(_with_spread, np.mean(values, axis=0), spread)
        lines.append(f"| {name.removesuffix('_all')} | {method} | {labels} | {accuracy} | {auc} | {len(values)} |")
    return lines


def _with_spread(mean: float, spread: float | None) -> str:
    return f"{mean:.3f}" if spread is None else f"{mean:.3f} ± {spread:.3f}"


if __name__ == "__main__":
    main()
