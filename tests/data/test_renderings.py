"""Images of one lens come together, as many of each, in every batch."""

import numpy as np
import pytest
import torch

from ssl_lens.data.batches import Plan
from ssl_lens.data.images import ImageSet
from ssl_lens.data.renderings import renderings_of
from ssl_lens.data.source import ImageSource, open_source
from ssl_lens.errors import InputError

LENSES = np.array([7, 3, 7, 5, 3, 5, 7], np.float64)  # lens 7 has three images


def image_set(lenses: np.ndarray = LENSES) -> ImageSet:
    """Image i is 10 times its lens, plus i / 10."""
    values = 10 * np.nan_to_num(lenses) + np.arange(len(lenses)) / 10
    images = np.broadcast_to(values[:, None, None, None], (len(lenses), 1, 4, 4)).astype(np.float32)
    names = tuple(f"{i}.npy" for i in range(len(lenses)))
    return ImageSet(images, names, None, (), targets={"lens": lenses})


def test_every_lens_has_as_many_images_as_the_rarest():
    source: ImageSource = renderings_of(image_set(), "lens")
    assert (len(source), source.renderings, source.shape, source.noise) == (3, 2, (1, 4, 4), None)
    assert list(source.names) == ["1.npy", "3.npy", "0.npy"]
    np.testing.assert_allclose(source.sample()[:, 0, 0, 0], [30.1, 30.4, 50.3, 50.5, 70.0, 70.2], rtol=1e-6)
    assert source.listing()["renderings"] == 2
    assert source.listing()["names"] == ["1.npy", "4.npy", "3.npy", "5.npy", "0.npy", "2.npy"]


def test_a_batch_holds_all_renderings_of_its_lenses_and_ranks_share_it():
    source = renderings_of(image_set(np.repeat(np.arange(8.0), 3)), "lens")
    seen: list[int] = []
    for step in range(2):
        for rank in range(2):
            batches = source.batches(Plan(4, 2, 0, rank, 2), torch.device("cpu"))
            assert batches.steps_per_epoch == 2
            for raw, index in batches.at(step):
                assert raw.shape == (1, 3, 1, 4, 4)
                expected = 10 * index[:, None] + (3 * index[:, None] + torch.arange(3)) / 10
                torch.testing.assert_close(raw[:, :, 0, 0, 0], expected.float())
                seen += index.tolist()
    assert sorted(seen) == list(range(8))


@pytest.mark.parametrize(
    ("lenses", "column", "message"),
    [
        (LENSES, "lens_number", "column=lens_number is not a number in the table of the images, which has lens;"),
        (np.array([1.0, 1, 2]), "lens", "2.npy is the only image of lens=2; give two or more of every lens"),
        (np.array([1.0, 1, np.nan]), "lens", "2.npy is the only image of lens=nan"),
    ],
)
def test_a_lens_that_is_seen_once_is_refused(lenses, column, message):
    with pytest.raises(InputError, match=message):
        renderings_of(image_set(lenses), column)


def test_a_folder_with_a_table_gives_lenses_and_shards_do_not(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pairs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["name,lens"]
    for i in range(8):
        np.save(folder / f"{i}.npy", rng.normal(size=(1, 4, 4)).astype(np.float32))
        rows.append(f"{i}.npy,{i // 2}")
    (folder / "targets.csv").write_text("\n".join(rows) + "\n")
    source = open_source(str(folder), renderings="lens")
    assert (len(source), source.renderings, list(source.names)) == (4, 2, [f"{i}.npy" for i in range(0, 8, 2)])
    assert open_source(str(folder)).renderings == 1
    with pytest.raises(InputError, match="renderings=lens brings images of a lens together; shards are streamed"):
        open_source(str(folder / "*.tar"), renderings="lens")
