"""What pretraining pays, with few labels: python benchmarks/learning.py --data LABELLED --out DIR [key=value ...]

Pretrains `lenses_minute` with several seeds on simulated lenses alone, fits each backbone to the unlabelled training
images of LABELLED, and measures it by few labels next to the fixed `lens_wavelets` and to the same network untrained.
Draws of labels are the same for all, so that differences are of pairs. `key=value` changes the recipe; pixels are cut
and binned by --center-crop and --bin. Writes DIR/table.md and DIR/results.csv; what is pretrained is not done again.

With --known MODEL instead of --data the simulator is known: one of DeepLense's telescopes at its own pixels, lenses as
DeepLense draws them. The labelled images are 3,000 of its lenses, 600 of them to judge; pairs are of the same ranges.
Nothing then has to carry over: twice the epochs, faint features enlarged, the hidden layer alone.

With --finetune 20 5 2 what was pretrained is fine-tuned, next to ridge on the same draws, 20 of 10 labels a class, 5 of
100 and 2 of 1,000, which go to DIR/tuned.md.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import ssl_lens
from ssl_lens.evaluation.probes.knn import KNN
from ssl_lens.evaluation.table import Row

ROOT = Path(__file__).parents[1]
SPLIT = ROOT / "recipes" / "splits" / "deeplense_binary_eval.txt"
BUDGETS = (10, 100, None)  # labels of each class, None for all
KNOWN = {"model_i": (112, 2), "model_ii": (56, 1), "model_iii": (56, 1)}  # pixels of its images cut to, and binned
TUNED_BUDGETS = (10, 100, 1000)
FIXED, UNTRAINED, TRAINED = "lens_wavelets", "lens_mlp, untrained", "lenses_minute"


def main() -> None:
    """Pretrains what is missing, measures everything, writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="changes to the recipe")
    judged = parser.add_mutually_exclusive_group(required=True)
    judged.add_argument("--data", type=Path, help="labelled images in one folder per class")
    judged.add_argument("--known", choices=KNOWN, help="one of DeepLense's telescopes, of which all is known")
    parser.add_argument("--noise", choices=("deeplense", "physical"), default="deeplense", help="of --known")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--split", type=Path, default=SPLIT, help="names of the images to judge by (default: the set's)"
    )
    parser.add_argument("--center-crop", type=int, default=112)
    parser.add_argument("--bin", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3, help="of pretraining")
    parser.add_argument("--draws", type=int, default=20, help="of labels")
    parser.add_argument(
        "--finetune",
        metavar="DRAWS",
        type=int,
        nargs=len(TUNED_BUDGETS),
        help="of 10, 100 and 1,000 labels, to tune with",
    )
    options = parser.parse_intermixed_args()
    if options.known:
        simulate_known(options)
    names = list(backbones(options))
    if options.finetune:
        write_tuned([row for name in names if name.startswith(TRAINED) for row in tuned(name, options)], options)
    else:
        write([row for name in names for row in measured(name, options)], options)


def simulate_known(options: argparse.Namespace) -> None:
    """Labelled images, a fifth of them to judge, and the changes by which the recipe draws pairs of the same ranges."""
    options.data, options.split = options.out / "labelled", options.out / "split.txt"
    ssl_lens.simulate(
        options.data,
        [f"noise={options.noise}"],
        count_per_class=1000,
        model=options.known,
        seed=77,
        as_deeplense=True,
    )
    names = sorted(file.relative_to(options.data).as_posix() for file in options.data.glob("*/*.npy"))
    options.split.write_text("\n".join(names[::5]) + "\n", encoding="utf-8")
    options.center_crop, options.bin = KNOWN[options.known]
    options.overrides = [
        f"simulate.model={options.known}",
        *("simulate.image_size=null", "simulate.pixel_scale_arcsec=null", "simulate.seed=5"),
        *("simulate.randomised=false", "simulate.as_deeplense=true", f"simulate.set={{noise: {options.noise}}}"),
        *(f"data.center_crop={options.center_crop}", f"data.bin={options.bin}"),
        *("model.smallest_std=0.003", "features.pooling=view", "optim.epochs=30"),
        *options.overrides,
    ]


def backbones(options: argparse.Namespace) -> dict[str, Path]:
    """Exports fitted to the images of the labelled set that nobody is judged by, made where they are missing."""
    made = options.out / "backbones"
    fit = {"data": options.data, "exclude": options.split, "center_crop": options.center_crop, "bin": options.bin}
    if not (made / FIXED).exists():
        ssl_lens.fit(FIXED, made / FIXED, stretch="asinh", pooling="log_rings", **fit)
    for seed in range(options.seeds):
        run, changes = options.out / "runs" / f"seed{seed}", [*options.overrides, f"seed={seed}"]
        if not (made / f"{TRAINED} {seed}").exists():
            ssl_lens.pretrain("lenses_minute", [*changes, f"run.folder={run}", "run.resume=auto"])
            ssl_lens.fit(run, made / f"{TRAINED} {seed}", **fit)
        if not (made / f"{UNTRAINED} {seed}").exists():
            ssl_lens.fit("lenses_minute", made / f"{UNTRAINED} {seed}", changes, **fit)
    names = [FIXED, *(f"{kind} {seed}" for kind in (UNTRAINED, TRAINED) for seed in range(options.seeds))]
    return {name: made / name for name in names}


def measured(name: str, options: argparse.Namespace) -> Sequence[Row]:
    """The rows of one backbone."""
    results = ssl_lens.evaluate(
        options.out / "backbones" / name,
        data=options.data,
        split=options.split,
        labels_per_class=BUDGETS,
        seeds=options.draws,
        probes=["ridge", KNN(), KNN(whiten=64)],
    )
    print(name, results, sep="\n", flush=True)
    return [row._replace(target=name) for row in results.table]


def tuned(name: str, options: argparse.Namespace) -> Sequence[Row]:
    """The rows of one backbone, frozen and fine-tuned."""
    rows: list[Row] = []
    for labels, draws in zip(TUNED_BUDGETS, options.finetune, strict=True):
        results = ssl_lens.evaluate(
            options.out / "backbones" / name,
            data=options.data,
            split=options.split,
            labels_per_class=[labels],
            seeds=draws,
            probes=["ridge", "finetune"],
            out=options.out / "tuned" / f"{name}, {labels}",
        )
        print(name, results, sep="\n", flush=True)
        rows += [row._replace(target=name) for row in results.table]
    return rows


def write_tuned(rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Accuracies of both, and the gain of fine-tuning over ridge with the same labels."""
    found: dict[tuple[str, str], dict[tuple[str, int], float]] = defaultdict(dict)
    for row in rows:
        if row.metric == "accuracy":
            found[row.probe, row.labels][row.target, row.seed] = row.value
    budgets = list(dict.fromkeys(labels for _, labels in found))
    lines = ["| | " + " | ".join(budgets) + " |", "|---" * (len(budgets) + 1) + "|"]
    for probe in ("ridge", "finetune"):
        cells = []
        for labels in budgets:
            values, frozen = (np.array(list(found[each, labels].values())) for each in (probe, "ridge"))
            cells.append(f"{values.mean():.4f} ± {values.std():.4f}")
            if probe != "ridge":
                draws = options.finetune[TUNED_BUDGETS.index(int(labels))]
                differences = (values - frozen).reshape(-1, draws).mean(axis=0)  # of backbones, by draw
                cells[-1] += f" ({interval(differences)})"
        lines.append(f"| {probe} | {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    (options.out / "tuned.md").write_text(text, encoding="utf-8")
    print(text)


def write(rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Accuracies: mean and standard deviation over draws and seeds, and the gain over the fixed features."""
    with (options.out / "results.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(Row._fields)
        table.writerows(rows)
    found: dict[tuple[str, str, str], dict[tuple[str, int], float]] = defaultdict(dict)
    for row in rows:
        if row.metric == "accuracy":
            kind, _, seed = row.target.rpartition(" ") if row.target[-1].isdigit() else (row.target, "", "0")
            found[kind, row.probe, row.labels][seed, row.seed] = row.value
    columns = list(dict.fromkeys((probe, labels) for _, probe, labels in found))
    lines = [
        "| | " + " | ".join(f"{probe}, {labels}" for probe, labels in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for kind in (FIXED, UNTRAINED, TRAINED):
        cells = []
        for column in columns:
            values, fixed = found[kind, *column], found[FIXED, *column]
            cells.append(f"{np.mean(list(values.values())):.3f} ± {np.std(list(values.values())):.3f}")
            if kind != FIXED:
                cells[-1] += f" ({gain(values, fixed)})"
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    (options.out / "table.md").write_text(text, encoding="utf-8")
    print(text)


def gain(values: dict[tuple[str, int], float], fixed: dict[tuple[str, int], float]) -> str:
    """Mean difference of the same draws and its 95 % interval, pretraining seeds averaged first."""
    draws = sorted({draw for _, draw in values})
    of_draw = [np.mean([value for (_, other), value in values.items() if other == draw]) for draw in draws]
    return interval(np.array(of_draw) - [fixed["0", draw] for draw in draws])


def interval(differences: np.ndarray) -> str:
    """Their mean and its 95 % interval."""
    if len(differences) < 2:
        return f"{differences.mean():+.3f}"
    return f"{differences.mean():+.3f} ± {1.96 * differences.std(ddof=1) / len(differences) ** 0.5:.3f}"


if __name__ == "__main__":
    main()
