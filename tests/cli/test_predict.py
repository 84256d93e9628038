"""The command `ssl-lens predict`."""

import csv

import numpy as np
import pytest
from tiny_run import write_labelled_images, write_run

from ssl_lens.cli import main as cli
from ssl_lens.representation import export as export_module
from ssl_lens.representation.frozen import load_backbone
from ssl_lens.representation.predictor import Classes, Predictor, linear_head, save_predictor


def test_a_folder_is_classified(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export_module, "write_onnx", lambda *arguments: None)
    monkeypatch.setattr(export_module, "onnx_difference", lambda *arguments: None)
    write_labelled_images(tmp_path / "data", per_class=3)
    frozen = load_backbone(write_run(tmp_path / "run"))
    network = Predictor(frozen.backbone, linear_head(np.zeros((2, 96)), np.log([1, 4])), "view")
    save_predictor(tmp_path / "saved", frozen.preprocess, network, Classes(("arc", "ring")), image_size=(40, 40))
    assert cli.main(["predict", "saved", "data", "scores.csv", "--batch-size", "2"]) == 0
    assert "scores.csv: 6 images" in capsys.readouterr().out
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows][:2] == ["arc/000.npy", "arc/001.npy"]
    assert {row["class"] for row in rows} == {"ring"}
    assert {round(float(row["score_arc"]), 6) for row in rows} == {0.2}
    assert cli.main(["predict", "run", "data", "scores.csv"]) == 2
    assert "without a head" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["embed", "predict", "export"])
def test_help_imports_nothing_that_takes_seconds(command):
    import argparse
    import importlib
    import subprocess
    import sys

    code = f"""
import argparse, importlib, sys
importlib.import_module("ssl_lens.cli.{command}").add_arguments(argparse.ArgumentParser())
assert not {{"torch", "pyarrow", "sklearn", "pandas", "faiss", "timm"}} & set(sys.modules), sorted(sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    parser = argparse.ArgumentParser()
    importlib.import_module(f"ssl_lens.cli.{command}").add_arguments(parser)
    assert "default" in parser.format_help()
