"""Which probe is right at few labels: python benchmarks/few_labels.py BACKBONE --data LABELLED --out DIR

Ridge, logistic regression and discriminant analysis on the same features and draws of labels, some of them with the
covariance of all training images, labels or not. Writes DIR/table.md: accuracy, mean and standard deviation over draws,
and the gain over ridge with its 95 % interval.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler

import ssl_lens
from ssl_lens.evaluation.answers import Answers, Classes
from ssl_lens.evaluation.probes.linear import LinearClassifier
from ssl_lens.evaluation.probes.probe import FeatureProbe, Map
from ssl_lens.evaluation.probes.ridge import Ridge
from ssl_lens.evaluation.table import Row

SPLIT = Path(__file__).parents[1] / "recipes" / "splits" / "deeplense_binary_eval.txt"
BUDGETS = (10, 100)
SHRINKAGES = (0.1, 10.0)  # of the whitening: added to the covariance, in units of its mean eigenvalue


class ShrunkLDA(FeatureProbe):
    """Linear discriminant analysis of standardised features, their covariance shrunk as Ledoit and Wolf do."""

    name = "LDA, shrunk"
    kinds = (Classes,)

    def fit(self, features: np.ndarray, answers: Answers, *, seed: int) -> LinearClassifier:
        assert isinstance(answers, Classes)
        scale = StandardScaler().fit(features)
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        model.fit(scale.transform(features).astype(np.float64), answers.labels)
        weight, bias = model.coef_, model.intercept_
        if len(weight) == 1:
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        return LinearClassifier(weight, bias, scale.mean_, scale.scale_)


class Whitened:
    """Features whitened by the covariance of all training images, which needs no labels; (C + shrinkage)^(-1/2)."""

    def __init__(self, shrinkage: float) -> None:
        self.shrinkage = shrinkage

    def map(self, pool: np.ndarray) -> Map:
        scale = StandardScaler().fit(pool)
        values, vectors = np.linalg.eigh(np.cov(scale.transform(pool).astype(np.float64), rowvar=False))
        whitening = vectors / np.sqrt(values.clip(0) + self.shrinkage * values.mean())
        return lambda features: scale.transform(features).astype(np.float64) @ whitening


class WhitenedRidge(Ridge):
    """Ridge on whitened features."""

    def __init__(self, shrinkage: float) -> None:
        self.whitened, self.name = Whitened(shrinkage), f"ridge, whitened by all, {shrinkage:g}"

    def map(self, pool: np.ndarray) -> Map:
        return self.whitened.map(pool)


class WhitenedMeans(FeatureProbe):
    """The nearest class mean of whitened features: discriminant analysis with the covariance of all images."""

    kinds = (Classes,)

    def __init__(self, shrinkage: float) -> None:
        self.whitened, self.name = Whitened(shrinkage), f"LDA, covariance of all, {shrinkage:g}"

    def fit(self, features: np.ndarray, answers: Answers, *, seed: int) -> LinearClassifier:
        assert isinstance(answers, Classes)
        means = np.stack([features[answers.labels == label].mean(axis=0) for label in range(len(answers.names))])
        zeros = np.zeros(features.shape[1])
        return LinearClassifier(means, -np.square(means).sum(axis=1) / 2, zeros, zeros + 1)

    def map(self, pool: np.ndarray) -> Map:
        return self.whitened.map(pool)


def main() -> None:
    """Measures every probe, writes and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", help="an export fitted to the images, as benchmarks/learning.py makes it")
    parser.add_argument("--data", type=Path, required=True, help="labelled images in one folder per class")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--split", type=Path, default=SPLIT, help="names of the images to judge by (default: DeepLense)"
    )
    parser.add_argument("--draws", type=int, default=20, help="of labels")
    options = parser.parse_args()
    probes: list[FeatureProbe] = [ShrunkLDA(), *map(WhitenedRidge, SHRINKAGES), *map(WhitenedMeans, SHRINKAGES)]
    results = ssl_lens.evaluate(
        options.backbone,
        data=options.data,
        split=options.split,
        labels_per_class=BUDGETS,
        seeds=options.draws,
        probes=["ridge", "linear", *probes],
    )
    options.out.mkdir(parents=True, exist_ok=True)
    table = text(results.table)
    (options.out / "table.md").write_text(table, encoding="utf-8")
    print(table)


def text(rows: list[Row]) -> str:
    """One line a probe."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row.metric == "accuracy":
            found.setdefault((row.probe, row.labels), []).append(row.value)
    budgets = list(dict.fromkeys(labels for _, labels in found))
    lines = ["| | " + " | ".join(budgets) + " |", "|---" * (len(budgets) + 1) + "|"]
    for probe in dict.fromkeys(probe for probe, _ in found):
        cells = []
        for labels in budgets:
            values = np.array(found[probe, labels])
            gain = values - found["ridge", labels]
            cells.append(f"{values.mean():.3f} ± {values.std(ddof=1):.3f}")
            if probe != "ridge":
                cells[-1] += f" ({gain.mean():+.3f} ± {1.96 * gain.std(ddof=1) / len(gain) ** 0.5:.3f})"
        lines.append(f"| {probe} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
