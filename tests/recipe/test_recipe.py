"""The recipe: strict, typed, one line per mistake."""

import re
from pathlib import Path
from typing import Literal

import pytest

from ssl_lens.errors import InputError
from ssl_lens.methods.catalog import METHODS
from ssl_lens.methods.method import Method, MethodOptions
from ssl_lens.recipe import recipe as recipe_module
from ssl_lens.recipe.recipe import VALID_KEYS, load_recipe, recipe_of, recipe_of_network, replace, resolve_auto
from ssl_lens.simulation.parameters import Parameters

DEFAULT = recipe_of_network("swin_tiny")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 3\noptim: {lr: 1e-4}\n")
    return path


def test_a_number_in_scientific_notation_is_a_number(file: Path) -> None:
    assert load_recipe(file).optim.lr == 1e-4


def test_what_is_not_given_has_its_default(file: Path) -> None:
    assert load_recipe(file) == replace(
        recipe_of_network("swin_tiny"), {"seed": 3, "optim.lr": 1e-4, "run.folder": "runs/mine"}
    )


def test_overrides_are_yaml_and_win(file: Path) -> None:
    recipe = load_recipe(
        file, ["optim.lr=2e-3", "views.local_sizes=[32, 24]", "views.local_counts=[4, 2]", "model.stem={group: D4}"]
    )
    assert recipe.optim.lr == 2e-3
    assert recipe.views.local_sizes == (32, 24)
    assert recipe.model.stem.group == "D4"
    assert recipe.model.stem.fields == 8


def test_yaml_written_is_read_back_equal(file: Path) -> None:
    recipe = load_recipe(file, ["model.stem={group: C8}", "model.depths=[2, 2, 4, 2]", "data.center_crop=128"])
    assert recipe.model.options == {"depths": (2, 2, 4, 2)}
    file.write_text(recipe.to_yaml())
    assert load_recipe(file) == recipe


@pytest.mark.parametrize(
    ("override", "planes"),
    [
        ("VIS", ("VIS",)),
        ("VIS,NIR_Y", ("VIS", "NIR_Y")),
        ("[2, VIS]", (2, "VIS")),
        ("1", (1,)),
        ("1,3", (1, 3)),
        ("[]", ()),
    ],
)
def test_planes_are_a_list_or_names_between_commas(file: Path, override: str, planes: tuple[str | int, ...]) -> None:
    recipe = load_recipe(file, [f"data.planes={override}", "data.files=*data.fits"])
    assert recipe.data.planes == planes
    assert recipe.data.files == "*data.fits"
    (file.parent / "saved.yaml").write_text(recipe.to_yaml())
    assert load_recipe(file.parent / "saved.yaml").data == recipe.data


@pytest.mark.parametrize("value", ["''", "VIS,,Y", "-1", "1.5", "true", "null", "[[1]]", "{a: 1}"])
def test_what_is_not_a_list_of_planes(file: Path, value: str) -> None:
    with pytest.raises(InputError, match=r"data\.planes: .* is not a list of planes; write names or numbers from 0"):
        load_recipe(file, [f"data.planes={value}"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.epoch=20", "unknown key optim.epoch=20; the nearest valid key is optim.epochs"),
        ("epochs=20", "unknown key epochs=20; the nearest valid key is optim.epochs"),
        ("model.stem.grup=C4", "unknown key model.stem.grup=C4; the nearest valid key is model.stem.group"),
        ("model.stem={grup: C4}", "model.stem: grup is not an option of the stem; the nearest is group"),
        ("optim.epochs=1.5", "optim.epochs=1.5 should be a valid integer; change optim.epochs"),
        ("optim.epochs='3'", "optim.epochs='3' should be a valid integer"),
        ("optim.lr=-1", "optim.lr=-1 should be 'auto' or greater than 0; change optim.lr"),
        ("optim.lr=fast", "optim.lr='fast' should be 'auto' or a valid number"),
        ("model.drop_path=.nan", "model.drop_path=nan should be a number, 0 or more and below 1"),
        ("model.name=swin_tin", "model.name='swin_tin' is unknown; the nearest are swin_tiny, swin_micro"),
        ("model.stem.group=C5", "model.stem.group='C5' should be 'C4', 'C8', 'D4' or 'D8'"),
        ("method.teacher_temp=no", "method.teacher_temp='no' should be a valid number"),
        ("optim=3", "optim=3 should be an object"),
        ("views.local_sizes=[96]", "views.local_sizes=[96] exceeds views.global_size=64"),
        ("views.local_sizes=[32, 24]", "views.local_sizes has 2 entries and views.local_counts 1"),
        (
            "views.lens_safe.psf_sigma_px=[2, 1]",
            "views.lens_safe.psf_sigma_px: [2.0, 1.0] is not a range; write its low end first",
        ),
        ("views.policy=lens", "views.policy: 'lens' is unknown; set lens_safe or imagenet"),
        ("optim.accumulate=3", "optim.batch_size=256 is not a multiple of optim.accumulate=3"),
        ("optim.warmup_epochs=100", "optim.warmup_epochs=100 is not below optim.epochs=100"),
        ("method={view_weight: 0, region_weight: 0}", "method.view_weight and method.region_weight are both 0"),
        ("method.name=dyno", "method.name='dyno' is unknown; the nearest are dino"),
        ("method=3", "method=3 should be an object"),
        ("method.view_wieght=1", "unknown key method.view_wieght=1; the nearest valid key is method.view_weight"),
        (
            "model.stem_stride=2",
            "model.stem_stride is not an option of swin_tiny, which has model.embed_dim, depths",
        ),
        ('data.path=""', "data.path"),
        ("optim.lr", "override 'optim.lr' is not key=value"),
        ("optim.lr=[1", "override optim.lr=[1, line 1: expected ',' or ']'"),
    ],
)
def test_a_mistake_is_one_line(file: Path, override: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        load_recipe(file, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_key_given_twice_is_refused(file: Path) -> None:
    file.write_text("seed: 1\noptim: {epochs: 3}\nseed: 2\n")
    with pytest.raises(InputError, match='line 3: found duplicate key "seed"'):
        load_recipe(file)


def test_several_mistakes_are_counted(file: Path) -> None:
    file.write_text("optim: {epochs: 0, batch_size: 1}\n")
    with pytest.raises(InputError, match=r"optim.epochs=0 should be .* \(and 1 more\)"):
        load_recipe(file)


@pytest.mark.parametrize("text", ["- 1\n", "just words\n"])
def test_a_file_that_is_not_a_recipe_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(InputError, match="write sections such as"):
        load_recipe(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none.yaml does not exist"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("n_images", "batch_size", "epochs", "lr", "out_dim", "momentum"),
    [
        (8_000, 256, 100, 5e-4, 4096, 1 - 20 / 3100),
        (8_000, 128, 20, 2.5e-4, 4096, 1 - 20 / 1240),
        (1_000_000, 512, 100, 1e-3, 65536, 0.996),
        (64, 32, 11, 6.25e-5, 4096, 0.5),
    ],
)
def test_auto_follows_the_data(
    n_images: int, batch_size: int, epochs: int, lr: float, out_dim: int, momentum: float
) -> None:
    recipe = replace(DEFAULT, {"optim.batch_size": batch_size, "optim.epochs": epochs})
    resolved, lines = resolve_auto(recipe, n_images=n_images, in_channels=3)
    assert resolved.optim.lr == pytest.approx(lr, rel=1e-12)
    assert resolved.method.out_dim == out_dim
    assert resolved.method.ema_momentum == pytest.approx(momentum, rel=1e-12)
    assert resolved.data.in_channels == 3
    assert [line.split(":")[0] for line in lines] == [
        "data.in_channels",
        "optim.lr",
        "method.out_dim",
        "method.ema_momentum",
    ]


def test_what_is_given_is_not_auto() -> None:
    values = {"optim.lr": 0.1, "method.out_dim": 7, "method.ema_momentum": 0.9, "data.in_channels": 1}
    recipe = replace(DEFAULT, values)
    assert resolve_auto(recipe, n_images=1000, in_channels=1) == (recipe, [])


def test_nested_keys_are_known() -> None:
    nested = {"model.stem.group", "views.lens_safe.noise_ratio", "simulate.seed", "simulate.set.shear"}
    assert nested <= set(VALID_KEYS)


def test_a_recipe_chooses_what_is_simulated(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("simulate: {model: model_ii, image_size: null, set: {shear: [0, 0.1], noise: deeplense}}")
    simulate = load_recipe(path, ["simulate.set.axion_mass_ev=[1e-23, 1e-22]"]).simulate
    assert (simulate.model, simulate.image_size, simulate.pixel_scale_arcsec) == ("model_ii", None, 0.1)
    assert simulate.set == Parameters(shear=(0, 0.1), noise="deeplense", axion_mass_ev=(1e-23, 1e-22))
    (tmp_path / "again.yaml").write_text(load_recipe(path).to_yaml())
    assert load_recipe(tmp_path / "again.yaml") == load_recipe(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "simulate.modle=model_i",
            "the nearest valid key is simulate.model",
        ),
        ("simulate.model=model_iv", "simulate.model='model_iv' should be 'model_i', 'model_ii' or 'model_i"),
        ("simulate.set.sheer=[0,1]", "the nearest valid key is simulate.set.shear"),
        ("simulate.set={sheer: [0, 1]}", "the nearest valid key is simulate.set.shear"),
        ("simulate.set.shear=0.1", "simulate.set.shear=0.1 should be a valid array"),
        ("simulate.set.shear=[0.2,0.1]", "simulate.set.shear: 0.2,0.1 is not a range; write its low end first"),
        ("simulate.set.noise=loud", "simulate.set.noise='loud' should be 'physical' or 'deeplense'"),
        ("simulate.set.lens_redshift=[0.1,1.5]", "simulate.set.source_redshift=1 is not behind simulate.set.lens_red"),
    ],
)
def test_what_cannot_be_simulated(tmp_path: Path, override: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text("")
    with pytest.raises(InputError, match=re.escape(message)) as error:
        load_recipe(tmp_path / "a.yaml", [override])
    assert "\n" not in str(error.value)


class Other(MethodOptions):
    name: Literal["other"] = "other"
    out_dim: int = 4
    sharpness: float = 1.0


@pytest.fixture
def another_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "other", type("OtherMethod", (Method,), {"Options": Other}))
    monkeypatch.setattr(recipe_module, "VALID_KEYS", (*VALID_KEYS, *(f"method.{key}" for key in Other.model_fields)))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["method.teacher_temp=0.1"],
            "method.teacher_temp=0.1 is an option of dino, not of other; remove it, or give method={name: other} to "
            "begin with the defaults of other",
        ),
        (["method.sharpnes=2"], "unknown key method.sharpnes=2; the nearest valid key is method.sharpness"),
        (["method.sharpness=much"], "method.sharpness='much' should be a valid number"),
    ],
)
def test_a_mistake_speaks_of_the_method_that_is_named(
    file: Path, another_method: None, overrides: list[str], message: str
) -> None:
    """Whichever way round name and option are given."""
    for given in (["method.name=other", *overrides], [*overrides, "method.name=other"]):
        with pytest.raises(InputError, match=re.escape(message)):
            load_recipe(file, given)
    with pytest.raises(InputError, match=re.escape("method.name='othr' is unknown; the nearest are other")):
        load_recipe(file, ["method.name=othr"])


def test_an_option_of_another_method_is_refused_by_the_default_one(file: Path, another_method: None) -> None:
    assert load_recipe(file, ["method={name: other, out_dim: 8}"]).method == Other(out_dim=8)
    with pytest.raises(InputError, match=r"method.sharpness=2 is an option of other, not of dino; remove it"):
        load_recipe(file, ["method.sharpness=2"])


def test_overrides_change_names_and_not_exports(tmp_path, monkeypatch):
    assert recipe_of("eqcvt", ["model.group=D4"]).model.name == "eqcvt"
    assert recipe_of("lenses_cpu", ["data.bin=1"]).data.bin == 1
    assert recipe_of(str(tmp_path), []) is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lenses_cpu").mkdir()  # a run, seen from within runs/
    assert recipe_of("lenses_cpu") is None
    with pytest.raises(InputError, match="data.bin=2 cannot change .* are settled"):
        recipe_of(str(tmp_path), ["data.bin=2"])
