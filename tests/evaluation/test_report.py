import numpy as np
import pytest
from PIL import Image

from ssl_lens.evaluation.report import summary_text, write_report
from ssl_lens.evaluation.table import Key, Prediction, Row
from ssl_lens.evaluation.tasks import TASKS


def _classified(labels: str, seed: int, right: float, num_classes: int = 2) -> tuple[list[Row], list[Prediction]]:
    """Of 40 images the first `right` part gets probability 0.9 for its class, the rest 0.1."""
    truth = np.arange(40) % num_classes
    own = np.where(np.arange(40) < right * 40, 0.9, 0.1)
    scores = np.repeat(((1 - own) / (num_classes - 1))[:, None], num_classes, axis=1)
    scores[np.arange(40), truth] = own
    key = Key("run", "classification", "knn", labels, seed)
    classes = tuple("abcde"[:num_classes])
    rows = [Row(*key, "accuracy", right), Row(*key, "auc", right), Row(*key, "recall[a]", right)]
    return rows, [Prediction(key, "class", tuple(map(str, range(40))), truth, scores, classes)]


def _together(*parts: tuple[list[Row], list[Prediction]]) -> tuple[list[Row], list[Prediction]]:
    rows, predictions = zip(*parts, strict=True)
    return sum(rows, []), sum(predictions, [])


def test_the_summary_has_a_line_per_probe_and_number_of_labels():
    rows, _ = _together(_classified("10", 0, 0.5), _classified("10", 1, 0.7), _classified("all", 0, 1.0))
    lines = summary_text(rows).splitlines()
    assert lines[0] == "classification"
    assert lines[1].split() == ["target", "probe", "labels", "seeds", "accuracy", "auc"]
    assert lines[2].split()[:7] == ["run", "knn", "10", "2", "0.6000", "±", "0.1414"]
    assert lines[3].split() == ["run", "knn", "all", "1", "1.0000", "1.0000"]


@pytest.mark.parametrize("num_classes", [2, 5])
def test_the_report_shows_every_metric_and_picture(tmp_path, num_classes):
    parts = [_classified(labels, seed, 0.75, num_classes) for labels in ("10", "all") for seed in (0, 1)]
    paths = write_report(*_together(*parts), {"data": "somewhere", "split": None}, tmp_path)
    assert [path.name for path in paths] == ["roc.png", "confusion.png", "budgets.png", "report.md"]
    text = paths[-1].read_text()
    assert "| run | knn | 10 | 2 | 0.7500 ± 0.0000 | 0.7500 ± 0.0000 |" in text
    assert "recall[a]" in text
    assert "- data: somewhere" in text
    for path in paths[:-1]:
        with Image.open(path) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_regression_has_a_panel_per_number_and_probe(tmp_path):
    truth = np.linspace(0, 1, 30)
    rows, predictions = [], []
    for probe, error in (("ridge", 0.1), ("constant", 0.3)):
        for output in ("a", "log10 b"):
            key = Key("run", "regression", probe, "all", 0)
            rows += [Row(*key, f"mae[{output}]", error), Row(*key, f"r2[{output}]", 0.5)]
            predictions.append(Prediction(key, output, ("x",) * 30, truth, (truth + error)[:, None]))
    paths = write_report(rows, predictions, {}, tmp_path)
    with Image.open(paths[0]) as picture:
        assert picture.size == (2 * 540, 2 * 540)
    assert "mae[log10 b]" in summary_text(rows)


def test_tasks_have_the_names_that_they_are_asked_for_by():
    assert [task.name for task in TASKS.values()] == list(TASKS)
