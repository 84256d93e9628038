"""`ssl-lens views` draws the views of a recipe."""

from pathlib import Path

import pytest
from PIL import Image
from tiny_run import RECIPE, write_labelled_images

from ssl_lens.cli import main as cli


def test_a_picture_does_not_become_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(write_labelled_images(tmp_path / "data", per_class=4))
    assert cli.main(["views", "../recipe.yaml", "data.path=."]) == 2
    assert "views.png lies in " in capsys.readouterr().err
    assert not Path("views.png").exists()


@pytest.mark.parametrize("out", [None, "new/mine.png"])
def test_views_draws_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str | None) -> None:
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    write_labelled_images(tmp_path / "data", per_class=4)
    chosen = [] if out is None else ["--out", out]
    assert cli.main(["views", *chosen, "recipe.yaml", "data.path=data"]) == 0
    with Image.open(out or "views.png") as image:
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50
