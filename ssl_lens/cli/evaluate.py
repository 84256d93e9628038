"""The command `ssl-lens evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssl_lens.cli.arguments import (
    SET_NAMES,
    add_set,
    flags,
    given_set,
    output_folder,
    path_argument,
    positive,
    text_argument,
)
from ssl_lens.errors import InputError, arguments_named

DEFAULT_FOLDER = Path("runs/evaluated")  # for results of what has no folder of its own
DEFAULT_K = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "targets",
        metavar="TARGET",
        type=text_argument,
        nargs="+",
        help="folder of a run or an export; a network's name or a recipe, for its fresh weights",
    )
    add_set(parser)
    parser.add_argument(
        "--tasks",
        metavar="TASK",
        nargs="+",
        action="extend",
        help="such as classification, regression, anomaly, retrieval, rotation; an unknown one lists them all "
        "(default: classification; regression with --target-column, anomaly with --anomaly)",
    )
    parser.add_argument(
        "--probes",
        metavar="PROBE",
        nargs="+",
        action="extend",
        help="such as knn, linear, ridge, finetune; of anomalies knn, mahalanobis, isolation_forest; an unknown one "
        "lists them all (default: those of a task)",
    )
    parser.add_argument(
        "--anomaly",
        metavar="CLASS",
        nargs="+",
        action="extend",
        default=[],
        help="classes that are anomalies, to be found unseen",
    )
    parser.add_argument("--untrained", action="store_true", help="also evaluate the same network with fresh weights")
    parser.add_argument("--pixels", action="store_true", help="also evaluate the preprocessed pixels themselves")
    parser.add_argument(
        "--pooling",
        metavar="POOLING",
        help="view: mean of the last map; stats: its mean, maximum and std; rings: its mean and std in concentric "
        "rings; stages, stage_rings: the same of every stage (default: the export's own, stage_rings for a run)",
    )
    parser.add_argument("--k", type=positive, default=DEFAULT_K, help="neighbours of knn (default %(default)s)")
    parser.add_argument(
        "--whiten",
        metavar="N",
        type=positive,
        help="also knn on the N leading principal components of the features, whitened by all images to train on",
    )
    parser.add_argument(
        "--save", metavar="FOLDER", type=path_argument, help="write the probe with its backbone, for `ssl-lens predict`"
    )


@arguments_named(SET_NAMES | flags("anomaly", "pooling", "k", "whiten"))
def run(options: argparse.Namespace) -> None:
    """Evaluates, and prints the summary and what was written."""
    from ssl_lens.evaluation.probes.knn import KNN
    from ssl_lens.evaluation.probes.probe import Probe
    from ssl_lens.evaluation.verbs import evaluate

    probes: list[str | Probe] | None = options.probes
    if probes is None and (options.whiten or options.k != DEFAULT_K):
        probes = ["knn"] if options.target_columns or options.anomaly else ["knn", "linear"]
    if probes is not None:
        if options.whiten and "knn" not in probes:
            raise InputError("--whiten is for the probe knn; add it to --probes")
        neighbours = [KNN(options.k), *([KNN(options.k, whiten=options.whiten)] if options.whiten else [])]
        probes = [chosen for probe in probes for chosen in (neighbours if probe == "knn" else [probe])]
    name = options.probes[0] if options.probes and len(options.probes) == 1 else ""
    found = evaluate(
        options.targets,
        tasks=options.tasks,
        probes=probes,
        anomaly=options.anomaly,
        untrained=options.untrained,
        pixels=options.pixels,
        pooling=options.pooling,
        out=output_folder(options, options.targets[0], name, DEFAULT_FOLDER),
        **given_set(options),
    )
    print(found.summary())
    print("\n".join(str(path) for path in found.files))
