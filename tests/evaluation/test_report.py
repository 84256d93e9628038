import csv
import json

import numpy as np
import pytest
from PIL import Image

from ssl_lens.evaluation.protocol import Prediction, Result
from ssl_lens.evaluation.report import summarise, table, write_report


def _result(method: str, count: int | None, seed: int, right: float, num_classes: int = 2) -> Result:
    """Of 40 images the first `right` part gets probability 0.9 for its class, the rest 0.1."""
    labels = np.arange(40) % num_classes
    own = np.where(np.arange(40) < right * 40, 0.9, 0.1)
    probabilities = np.repeat(((1 - own) / (num_classes - 1))[:, None], num_classes, axis=1)
    probabilities[np.arange(40), labels] = own
    return Result(method, count, seed, labels, Prediction(probabilities))


@pytest.fixture
def results() -> list[Result]:
    ours = [_result("run", 10, seed, right) for seed, right in enumerate([0.5, 0.7, 0.9])]
    return [*ours, _result("run", None, 0, 1.0), _result("pixels", 10, 0, 0.5), _result("pixels", None, 0, 0.75)]


def test_summary_is_mean_and_sample_standard_deviation(results):
    first, last = summarise(results)[0], summarise(results)[-1]
    assert (first.method, first.labels_per_class, first.seeds) == ("run", 10, 3)
    assert first.accuracy == pytest.approx(0.7)
    assert first.accuracy_std == pytest.approx(0.2)
    assert (last.seeds, last.accuracy, last.accuracy_std) == (1, 0.75, None)


def test_table_has_a_line_per_summary_with_the_numbers(results):
    lines = table(summarise(results)).splitlines()
    assert len(lines) == 5
    assert lines[1].split()[:6] == ["run", "10", "3", "0.7000", "±", "0.2000"]
    assert lines[2].split()[:4] == ["run", "all", "1", "1.0000"]
    assert len({len(line) for line in lines}) == 1


def test_files_hold_the_numbers_and_pictures_show_something(results, tmp_path):
    paths = write_report(results, ["lens", "nolens"], tmp_path / "new" / "out", {"data": "somewhere"})
    assert [path.name for path in paths] == ["results.csv", "results.json", "roc.png", "confusion.png"]
    with paths[0].open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == pytest.approx([0.5, 0.7, 0.9, 1.0, 0.5, 0.75])
    assert rows[3]["labels_per_class"] == "all"
    content = json.loads(paths[1].read_text())
    assert content["settings"] == {"data": "somewhere"}
    assert content["summary"][0]["accuracy_std"] == pytest.approx(0.2)
    assert len(content["results"]) == 6
    for path in paths[2:]:
        with Image.open(path) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_five_classes(tmp_path):
    results = [_result("run", None, 0, 0.8, num_classes=5)]
    assert summarise(results)[0].accuracy == pytest.approx(0.8)
    write_report(results, ["a", "b", "c", "d", "e"], tmp_path, {})
