import numpy as np
import pytest

from ssl_lens.evaluation import table
from ssl_lens.evaluation.table import Key, Prediction, Row, Writer, read_predictions, read_rows, summarise

KEY = Key("run", "classification", "knn", "10", 0)


def _rows(values: list[float], metric: str = "accuracy") -> list[Row]:
    return [Row("run", "classification", "knn", "10", seed, metric, value) for seed, value in enumerate(values)]


def test_summary_is_mean_and_sample_standard_deviation():
    first, last = summarise([*_rows([0.5, 0.7, 0.9]), *_rows([0.75], "auc")])
    assert (first.mean, first.std, first.seeds) == (pytest.approx(0.7), pytest.approx(0.2), 3)
    assert (last.metric, last.mean, last.std, last.seeds) == ("auc", 0.75, None, 1)


def test_both_files_bring_back_what_was_added(tmp_path):
    """A classification, a number and anomalies that nobody knows, in one pair of files."""
    classes = ("arc", "ring")
    said = [
        Prediction(KEY, "class", ("a", "b"), np.array([0, 1]), np.array([[0.75, 0.25], [0.5, 0.5]]), classes),
        Prediction(KEY._replace(task="regression"), "log10 mass", ("a",), np.array([1.5]), np.array([[2.5]])),
        Prediction(KEY._replace(task="anomaly", seed=1), "anomaly", ("a",), np.array([np.nan]), np.array([[3.0]])),
    ]
    writer = Writer(tmp_path / "new" / "out", classes)
    writer.add(_rows([0.5]), said[:1])
    writer.add(_rows([1 / 3], "auc"), said[1:])
    assert read_rows(writer.folder) == [*_rows([0.5]), *_rows([0.33333333], "auc")]
    for before, after in zip(said, read_predictions(writer.folder), strict=True):
        assert after[:3] == before[:3]
        np.testing.assert_array_equal(after.truth, before.truth)
        np.testing.assert_array_equal(after.scores, before.scores)
        assert after.classes == before.classes
    line = (writer.folder / table.PREDICTIONS).read_text().splitlines()[1]
    assert line == "run,classification,knn,10,0,a,test,class,arc,arc,0.75,0.25"


def test_files_of_an_evaluation_before_are_replaced(tmp_path):
    for value in (0.25, 0.5):
        Writer(tmp_path, ()).add(_rows([value]), [])
    assert read_rows(tmp_path) == _rows([0.5])
