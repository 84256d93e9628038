"""The results table of recipes/lenses_cpu.yaml: python benchmarks/lenses_cpu.py --data DIR --out FOLDER

Pretrains with several seeds, evaluates each run by kNN, linear probe and fine-tuning beside the same network untrained,
raw pixels and training from scratch, and writes FOLDER/table.md: mean and standard deviation over the seeds, each seed
being the mean over three draws of labels. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "lenses_cpu.yaml"
SPLIT = ROOT / "recipes" / "splits" / "deeplense_binary_eval.txt"
FEW, ALL = ["--labels-per-class", "10", "100"], ["--labels-per-class", "all"]
EVALUATIONS = {  # name of the results: script, arguments
    "knn": ("knn", [*FEW, "all", "--seeds", "3", "--untrained", "--whiten", "64"]),
    "linear_probe": ("linear_probe", [*FEW, "all", "--seeds", "3", "--untrained"]),
    "finetune": ("finetune", [*FEW, "--seeds", "3", "--scratch", "--pooling", "rings", "--bf16"]),
    "finetune_all": ("finetune", [*ALL, "--seeds", "1", "--scratch", "--pooling", "rings", "--bf16", "--epochs", "8"]),
}
PIXELS = ("knn", "linear_probe")  # raw pixels know no seed: beside the first run only


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
        _python("pretrain.py", RECIPE, *pretrain)
        for name, (script, arguments) in EVALUATIONS.items():
            out = run / "eval" / name
            if not (out / "results.json").is_file():
                pixels = ["--pixels"] if seed == 0 and name in PIXELS else []
                common = ["--data", options.data, "--split", SPLIT, "--out", out]
                _python(f"eval/{script}.py", run, *common, *arguments, *pixels)
    table = "\n".join(["| classifier | features | labels per class | accuracy | macro AUC |", "|---|---|---|---|---|"])
    table += "".join(f"\n{row}" for name in EVALUATIONS for row in _rows(name, runs))
    (options.out / "table.md").write_text(table + "\n", encoding="utf-8")
    print(table)


def _python(script: str, *arguments: object) -> None:
    subprocess.run([sys.executable, script, *map(str, arguments)], cwd=ROOT, check=True)


def _rows(name: str, runs: list[Path]) -> list[str]:
    """One line of the table per method and number of labels."""
    figures: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for run in runs:
        results = json.loads((run / "eval" / name / "results.json").read_text(encoding="utf-8"))
        for row in results["summary"]:
            key = row["method"].replace(run.name, "pretrained"), row["labels_per_class"]
            figures.setdefault(key, []).append((row["accuracy"], row["auc"]))
    lines = []
    for (method, labels), values in figures.items():
        mean, std = np.mean(values, axis=0), np.std(values, axis=0, ddof=1) if len(values) > 1 else (np.nan, np.nan)
        accuracy, auc = (f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, std, strict=True))
        lines.append(f"| {name} | {method} | {labels} | {accuracy} | {auc} |")
    return lines


if __name__ == "__main__":
    main()
