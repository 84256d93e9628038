"""The supervised baselines, side by side: python benchmarks/baselines.py [NAME ...] --data DIR --out FOLDER

Trains networks from scratch on labelled images, judges them, and writes FOLDER/table.md. The images are those of the
DeepLense binary set or of its shape, 150 px: their middle 128 px binned to 64, which two CPU cores can do; `--full` for
148 px at full resolution, on a GPU; `key=value` changes either. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SPLIT = ROOT / "recipes" / "splits" / "deeplense_binary_eval.txt"
SMALL = ("data.center_crop=128", "data.bin=2", "data.stretch=asinh")
FULL = ("data.center_crop=148", "data.stretch=asinh")  # a multiple of Swin's patch
FULL_EPOCHS = 20
LAST_WRITTEN = "report.md"  # of a network's results


class Plan(NamedTuple):
    """How a network is trained: epochs at 64 px, about half an hour at most on one core, and what else it needs."""

    epochs: int
    overrides: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


# At the default learning rate of 5e-4 Swin stays at chance.
TRANSFORMER = ("model.drop_path=0",), ("--lr", "1e-4", "--augmentation", "right-angle")
PLANS = {
    "eqcvt": Plan(12),
    "eqcvt_invariant": Plan(8),
    "cvt_small_lens": Plan(40),
    "steerable_cnn_c8": Plan(4),
    "resnet18": Plan(20),
    "swin_tiny": Plan(10, *TRANSFORMER),
    "crossformer_tiny": Plan(10, *TRANSFORMER),
    "regionvit_tiny": Plan(6, *TRANSFORMER),
}


def main() -> None:
    """Trains what is missing; rewrites the table after every network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", metavar="NAME or key=value", nargs="*", help="default: all networks")
    parser.add_argument("--data", type=Path, required=True, help="images of 150 px in one folder per class")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", type=Path, default=SPLIT, help="names of the images to judge by")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="of every network; default: as planned for it")
    parser.add_argument("--full", action="store_true", help=f"148 px and {FULL_EPOCHS} epochs, for a GPU")
    options = parser.parse_intermixed_args()
    names = [word for word in options.words if "=" not in word] or list(PLANS)
    if unknown := [name for name in names if name not in PLANS]:
        parser.error(f"{', '.join(unknown)} has no plan here; known are {', '.join(PLANS)}")
    for name in names:
        out = options.out / name
        if not (out / LAST_WRITTEN).is_file():
            _train(name, options, out)
        table = _table(options.out)
        (options.out / "table.md").write_text(table, encoding="utf-8")
    print(table, end="")


def _train(name: str, options: argparse.Namespace, out: Path) -> None:
    plan = PLANS[name]
    epochs = options.epochs or (FULL_EPOCHS if options.full else plan.epochs)
    overrides = [*plan.overrides, *(FULL if options.full else SMALL), *(word for word in options.words if "=" in word)]
    where = ("--data", options.data, "--split", options.split, "--out", out)
    length = ("--labels-per-class", "all", "--seeds", options.seeds, "--epochs", epochs, "--bf16", *plan.arguments)
    command = [sys.executable, "eval/finetune.py", name, *overrides, *where, *length]
    subprocess.run([str(word) for word in command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def _table(out: Path) -> str:
    """One line for each network that has results, in the order of the plans."""
    lines = ["| network | parameters | accuracy | macro AUC | logit std, 8 x 45° | 4 x 90° | epochs |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name in PLANS:
        if not (out / name / LAST_WRITTEN).is_file():
            continue
        content = json.loads((out / name / "results.json").read_text(encoding="utf-8"))
        of = {row["metric"]: row for row in content["summary"]}
        lines.append(
            f"| `{name}` | {of['parameters']['mean']:,.0f} | {_figure(of['accuracy'])} | {_figure(of['auc'])} "
            f"| {of['std_8x45']['mean']:.3f} | {_small(of['std_4x90']['mean'])} | {content['epochs']} |"
        )
    return "\n".join(lines) + "\n"


def _figure(summary: dict) -> str:
    spread = summary["std"]
    return f"{summary['mean']:.4f}" + (f" ± {spread:.4f}" if spread is not None else "")


def _small(value: float) -> str:
    return f"{value:.3f}" if value >= 1e-3 else f"{value:.0e}"


if __name__ == "__main__":
    main()
