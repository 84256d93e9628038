"""How far few labels reach as lenses become realistic: python benchmarks/telescopes.py --out DIR

Simulates labelled lenses of DeepLense's three telescopes, as its code draws them and in steps towards what is physical,
fits `lens_wavelets` and the shipped `lens_small` to those that do not judge, and measures both with few labels: classes
by accuracy and macro AUC, the axion's mass (its decimal logarithm, of the lenses that have one) and the fraction of the
mass in substructure by R². Writes DIR/results.csv and DIR/table.md; what is simulated is not simulated again.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

import ssl_lens

SETTINGS: dict[str, tuple[bool, list[str]]] = {  # as DeepLense's code, and what is changed
    "as DeepLense": (True, []),
    "as DeepLense, physical noise": (True, ["noise=physical"]),
    "as DeepLense, subhalo_slope=-1.9": (True, ["subhalo_slope=-1.9"]),
    "physical, subhalo_slope=-0.9": (False, ["subhalo_slope=-0.9"]),
    "physical": (False, []),
}
PIXELS = {"model_i": (112, 2), "model_ii": (56, 1), "model_iii": (56, 1)}  # cut to, and binned
BACKBONES = ("lens_wavelets", "lens_small")
LABELS = (10, 100, None)  # of each class, or 100 and all numbers
NUMBERS = {"log10 axion_mass_ev": "axion_mass_ev", "substructure_mass_fraction": "substructure_mass_fraction"}
COLUMNS = ("accuracy, 10", "auc, 10", "accuracy, 100", "auc, 100", "accuracy, all", "auc, all")
COLUMNS += tuple(f"r2[{name}], {labels}" for name in NUMBERS for labels in ("100", "all"))


def main() -> None:
    """Measures every telescope and setting, writes the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--per-class", type=int, default=500)
    parser.add_argument("--draws", type=int, default=10, help="of labels")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    lines = ["| telescope | lenses | features | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 3) + "|"]
    with (options.out / "results.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("telescope", "lenses", "features", "column", "draw", "value"))
        for model in PIXELS:
            for setting in SETTINGS:
                lenses = simulated(options.out / "lenses", model, setting, options.per_class)
                for backbone in BACKBONES:
                    found = measured(backbone, lenses, model, options.draws)
                    for column, values in found.items():
                        table.writerows((model, setting, backbone, column, *row) for row in enumerate(values))
                    cells = (f"{np.mean(found[column]):.3f} ± {np.std(found[column]):.3f}" for column in COLUMNS)
                    lines.append(f"| {model} | {setting} | `{backbone}` | {' | '.join(cells)} |")
                    print(lines[-1], flush=True)
    (options.out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def simulated(folder: Path, model: str, setting: str, per_class: int) -> Path:
    """A folder of labelled lenses, made where it is missing, and next to it the names of a fifth, to judge by."""
    as_deeplense, changes = SETTINGS[setting]
    lenses = folder / f"{model} {setting}"
    ssl_lens.simulate(lenses, changes, count_per_class=per_class, model=model, seed=77, as_deeplense=as_deeplense)
    names = sorted(file.relative_to(lenses).as_posix() for file in lenses.glob("*/*.npy"))
    lenses.with_suffix(".txt").write_text("\n".join(names[::5]) + "\n", encoding="utf-8")
    return lenses


def measured(backbone: str, lenses: Path, model: str, draws: int) -> dict[str, list[float]]:
    """What every column's draws give, of one backbone fitted to the lenses that do not judge."""
    crop, bin = PIXELS[model]
    split, fitted = lenses.with_suffix(".txt"), lenses.parents[1] / "backbones" / f"{backbone} {lenses.name}"
    pooling = {"stretch": "asinh", "pooling": "log_rings"} if backbone == "lens_wavelets" else {}
    if not fitted.exists():
        ssl_lens.fit(backbone, fitted, data=lenses, exclude=split, center_crop=crop, bin=bin, **pooling)
    common = {"data": lenses, "split": split, "seeds": draws, "probes": ["ridge"]}
    rows = list(ssl_lens.evaluate(fitted, labels_per_class=LABELS, **common).table)
    for name, number in NUMBERS.items():
        logarithms = [number] if name.startswith("log10") else []
        found = ssl_lens.evaluate(fitted, target_columns=[number], log_targets=logarithms, labels=LABELS[1:], **common)
        rows += [row for row in found.table if row.target != "constant"]
    values = defaultdict(list)
    for row in rows:
        values[f"{row.metric}, {row.labels}"].append(row.value)
    return {column: values[column] for column in COLUMNS}


if __name__ == "__main__":
    main()
