"""`ssl-lens views` draws the views of a recipe."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_run import RECIPE, write_labelled_images

from ssl_lens.cli import main as cli
from ssl_lens.views import picture
from ssl_lens.views.multicrop import Views


def test_a_picture_does_not_become_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(write_labelled_images(tmp_path / "data", per_class=4))
    assert cli.main(["views", "../recipe.yaml", "data.path=."]) == 2
    assert "views.png lies in " in capsys.readouterr().err
    assert not Path("views.png").exists()


def test_the_picture_shows_what_the_network_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views that change nothing are the image next to them: stretched, once, as one recipe's numbers have it."""
    drawn: list[tuple[Views, torch.Tensor]] = []
    monkeypatch.setattr(picture, "save_views", lambda views, path, images, **how: drawn.append((views, images)))
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    write_labelled_images(tmp_path / "data", per_class=3)
    words = [str(tmp_path / "recipe.yaml"), f"data.path={tmp_path / 'data'}", "views.policy=renderings"]
    assert cli.main(["views", *words, "--out", str(tmp_path / "views.png")]) == 0
    ((views, images),) = drawn
    assert torch.equal(views.global_crops, images.expand(2, -1, -1, -1, -1))
    assert images.mean().item() == pytest.approx(0, abs=1e-4)  # all of the set is shown
    assert images.std().item() == pytest.approx(1, abs=1e-3)


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
