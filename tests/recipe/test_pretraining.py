"""Whole runs: exact resumption, skipped steps, accumulation, processes."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from shard_files import member, write_tar
from stopping import Stopped
from torch import Tensor

from ssl_lens.engine.loop import Step
from ssl_lens.engine.skips import SkippedSteps
from ssl_lens.errors import InputError
from ssl_lens.recipe.compose import Pretraining, compose
from ssl_lens.recipe.recipe import Recipe
from ssl_lens.representation.frozen import untrained_backbone
from ssl_lens.views.multicrop import Views

RESNET = ("model={name: resnet_micro}",)
STEPS = 6  # of a tiny run: 2 epochs of 24 images in batches of 8


def states(pretraining: Pretraining) -> dict[str, Tensor]:
    return pretraining.method.state_dict()


def largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[key].double() - theirs[key].double()).abs().max()) for key in ours)


def without_key_bias(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A softmax ignores the bias of its keys, so that its gradient is rounding alone, which AdamW scales to a step."""
    kept = dict(state)
    for key in state:
        if key.endswith("attn.qkv.bias"):
            query, _, value = state[key].chunk(3)
            kept[key] = torch.cat([query, value])
    return kept


@pytest.mark.pictures
def test_a_run_leaves_its_whole_folder(run: Callable[..., Pretraining], image_folder: Path) -> None:
    weights = ("method.view_weight=0.3", "method.region_weight=0.6")
    root = run("whole", f"data.probe={image_folder}", "run.keep_checkpoints=1", *weights).folder.root
    found = {path.relative_to(root).as_posix() for path in root.rglob("*")}
    assert {
        "recipe.yaml",
        "backbone.json",
        "preprocess.json",
        "environment.json",
        "images.json",
        "metrics.jsonl",
    } <= found
    assert {"plots/curves.png", "plots/views.png", f"checkpoints/step_{STEPS:08d}/method.safetensors"} <= found
    assert [path.name for path in (root / "checkpoints").iterdir()] == [f"step_{STEPS:08d}"]
    records = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(STEPS))
    assert [i for i, record in enumerate(records) if "probe_knn" in record] == [2, 5]
    losses = [(record["loss"], 0.3 * record["view_loss"] + 0.6 * record["region_loss"]) for record in records]
    assert all(total == pytest.approx(parts, abs=1e-6) for total, parts in losses)


def test_the_same_seed_gives_the_same_run_and_another_another(run: Callable[..., Pretraining]) -> None:
    first, again, other = (states(run(name, f"seed={seed}")) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert largest_difference(first, again) == 0
    assert largest_difference(first, other) > 1e-3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_resumes_bit_exactly(
    run: Callable[..., Pretraining],
    tiny_recipe: Callable[..., Recipe],
    stopped_in_step_3: Stopped,
    number: signal.Signals,
) -> None:
    """Stopped in the middle of an epoch; momenta, centres, drop path, views and metrics all go on as if it had not."""
    whole = run("whole")
    with stopped_in_step_3(number) as stop:
        run("stopped")
    assert "run.resume=auto" in str(stop.value)
    assert stop.value.exit_status == 128 + number
    resumed = run("stopped", "run.resume=auto")
    assert resumed.start == 5  # the signal of step 3 is seen in step 4, which is finished first
    assert largest_difference(states(whole), states(resumed)) == 0
    metrics = [
        [{key: value for key, value in json.loads(line).items() if key not in UNREPEATABLE} for line in lines]
        for lines in (p.folder.metrics.read_text().splitlines() for p in (whole, resumed))
    ]
    assert metrics[0] == metrics[1]


UNREPEATABLE = {"images_per_s"}


def test_the_untrained_network_of_a_run_is_the_one_it_began_with(
    run: Callable[..., Pretraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []
    train = Pretraining.run
    monkeypatch.setattr(
        Pretraining, "run", lambda self: (starts.append(copy.deepcopy(self.method.backbone.state_dict())), train(self))
    )
    root = run("a", "seed=5", "run.cpu_threads=1").folder.root
    untrained = untrained_backbone(root).state_dict()
    assert all(torch.equal(value, untrained[key]) for key, value in starts[0].items())


def test_resuming_a_finished_run_changes_nothing(run: Callable[..., Pretraining]) -> None:
    before, after = states(run("a")), states(run("a", "run.resume=auto"))
    assert largest_difference(before, after) == 0


def test_an_existing_folder_is_refused(run: Callable[..., Pretraining]) -> None:
    run("a")
    with pytest.raises(InputError, match=r"a exists already; set run.resume=auto"):
        run("a")


def shards_of(image_folder: Path) -> str:
    """The images of a folder as three shards; returns their pattern."""
    files = sorted(image_folder.rglob("*.npy"))
    for i, (start, stop) in enumerate(((0, 5), (5, 16), (16, 24))):
        members = [member(f"{path.parent.name}_{path.name}", path.read_bytes()) for path in files[start:stop]]
        write_tar(image_folder.parent / "shards" / f"{i}.tar", members)
    return f"{image_folder.parent}/shards/{{0..2}}.tar"


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_stopped_run_on_shards_resumes_bit_exactly(
    run: Callable[..., Pretraining], image_folder: Path, stopped_in_step_3: Stopped, workers: int
) -> None:
    """Stopped in the middle of an epoch; the same weights, and the same images in every step."""
    streamed = f"data.path={shards_of(image_folder)}", f"data.workers={workers}", "data.shuffle_buffer=3"
    whole = run("whole", *streamed)
    with stopped_in_step_3():
        run("stopped", *streamed)
    resumed = run("stopped", "run.resume=auto", *streamed)
    assert resumed.start == 5
    assert largest_difference(states(whole), states(resumed)) == 0
    listed = json.loads(whole.folder.images.read_text())
    assert listed == {"shape": [1, 20, 20], "shards": {"0.tar": 5, "1.tar": 11, "2.tar": 8}}
    assert whole.names[15] == "1.tar#000010"


def test_a_streamed_run_fits_to_what_a_packed_one_does(tiny_recipe: Callable[..., Recipe], image_folder: Path) -> None:
    packed = compose(tiny_recipe("packed", "views.policy=imagenet"))
    streamed = compose(tiny_recipe("streamed", "views.policy=imagenet", f"data.path={shards_of(image_folder)}"))
    ours, theirs = streamed.preprocess.config(), packed.preprocess.config()
    assert ours["mean"] == pytest.approx(theirs["mean"], rel=1e-12)
    assert ours["std"] == pytest.approx(theirs["std"], rel=1e-12)
    ours, theirs = streamed.multicrop.pixel_effects, packed.multicrop.pixel_effects
    assert (ours.black, ours.white) == (theirs.black, theirs.white) != ((-2.0,), (2.0,))


def test_resuming_on_other_shards_is_refused(tiny_recipe: Callable[..., Recipe], image_folder: Path) -> None:
    streamed = f"data.path={shards_of(image_folder)}"
    compose(tiny_recipe("a", streamed))
    write_tar(
        image_folder.parent / "shards" / "2.tar", [member("a.npy", next(image_folder.rglob("*.npy")).read_bytes())]
    )
    with pytest.raises(InputError, match=r"run on 24 images of shape \[1, 20, 20\] in 3 shards, now given are 17"):
        compose(tiny_recipe("a", "run.resume=auto", streamed))


def test_leaving_images_out_of_shards_is_refused(tiny_recipe: Callable[..., Recipe], image_folder: Path) -> None:
    with pytest.raises(InputError, match="data.exclude=.*names.txt cannot leave images out of shards"):
        compose(tiny_recipe("a", f"data.path={shards_of(image_folder)}", "data.exclude=names.txt"))


def test_resuming_with_another_recipe_is_refused(run: Callable[..., Pretraining]) -> None:
    run("a")
    with pytest.raises(InputError, match=r"run with optim.lr=0.001, the recipe now says 0.5"):
        run("a", "run.resume=auto", "optim.lr=0.5")


def test_images_and_weights_may_have_been_moved_before_a_resume(
    run: Callable[..., Pretraining], tiny_recipe: Callable[..., Recipe], image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("blob/00.npy\n", encoding="utf-8")
    start = run("start").folder.root
    given = f"data.probe={image_folder}", f"data.exclude={tmp_path / 'names.txt'}", f"model.weights={start}"
    whole = run("moved", *given)
    shutil.rmtree(whole.folder.checkpoints / "step_00000004")
    start.rename(tmp_path / "gone")  # what training began with is in the checkpoint
    elsewhere = image_folder.rename(tmp_path / "elsewhere")
    (tmp_path / "names.txt").rename(tmp_path / "left_out.txt")
    places = f"data.path={elsewhere}", f"data.probe={elsewhere}", f"data.exclude={tmp_path / 'left_out.txt'}"
    resumed = compose(tiny_recipe("moved", *places, f"model.weights={start}", "run.resume=auto"))
    assert resumed.start == 2
    with pytest.raises(InputError, match="run with data.stretch='none', the recipe now says 'log'"):
        compose(tiny_recipe("moved", *places, "data.stretch=log", "run.resume=auto"))
    with pytest.raises(InputError, match="run on 23 images of shape .* now given are 24 images"):
        compose(tiny_recipe("moved", *places[:2], "run.resume=auto"))


def test_resuming_on_other_images_is_refused(run: Callable[..., Pretraining], image_folder: Path) -> None:
    run("a")
    next(image_folder.rglob("*.npy")).unlink()
    with pytest.raises(InputError, match=r"run on 24 images of shape \[1, 20, 20\], now given are 23"):
        run("a", "run.resume=auto")


def test_accumulated_micro_batches_equal_one_batch(run: Callable[..., Pretraining]) -> None:
    """Centres included; without drop path, which draws per forward pass."""
    whole, parts = (states(run(f"acc{n}", f"optim.accumulate={n}", "model.drop_path=0")) for n in (1, 4))
    assert largest_difference(without_key_bias(whole), without_key_bias(parts)) < 1e-6


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int], image: int) -> None:
    """Makes one image's views NaN whenever a step of `steps` reads it."""
    make = Pretraining.views_at

    def poisoned(self: Pretraining, step: int) -> Iterator[Views]:
        for index, views in zip(self.indices_at(step), make(self, step), strict=True):
            if step in steps:
                views.global_crops[:, index == index[image]] = float("nan")
            yield views

    monkeypatch.setattr(Pretraining, "views_at", poisoned)


@pytest.mark.parametrize("network", [(), RESNET], ids=["swin", "resnet"])
def test_a_step_that_is_not_finite_leaves_no_trace(
    run: Callable[..., Pretraining], monkeypatch: pytest.MonkeyPatch, network: tuple[str, ...]
) -> None:
    """Weights, centres and batch-norm statistics stay, of student and teacher; the image is named; the run goes on."""
    snapshots = {}
    poison(monkeypatch, {2}, image=5)
    after_step = SkippedSteps.after_step

    def remember(self: SkippedSteps, step: Step) -> None:
        after_step(self, step)
        snapshots[step.number] = {key: value.clone() for key, value in self.method.state_dict().items()}

    monkeypatch.setattr(SkippedSteps, "after_step", remember)
    pretraining = run("poisoned", *network)

    assert largest_difference(snapshots[1], snapshots[2]) == 0
    final = states(pretraining)
    assert all(value.isfinite().all() for value in final.values())
    assert largest_difference(snapshots[2], final) > 1e-4
    index = pretraining.indices_at(2)[0][5]
    record = json.loads(pretraining.folder.skipped_steps.read_text())
    assert record == {"step": 2, "images": [pretraining.names[index]]}


@pytest.mark.parametrize("first", [0, 1])
def test_the_third_step_in_a_row_stops_the_run(
    run: Callable[..., Pretraining], monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    with monkeypatch.context() as patch:
        poison(patch, {first, first + 1, first + 2}, image=0)
        with pytest.raises(InputError, match=f"steps {first + 1} to {first + 3} were not finite"):
            run("poisoned")
    assert run("poisoned", "run.resume=auto").start == first + 3  # the good steps before are saved


TORCHRUN = ("torch.distributed.run", "--nproc_per_node=2", "--master_port=29533")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--main_process_port=29534")


@pytest.mark.parametrize(
    "launcher", [ACCELERATE, pytest.param(TORCHRUN, marks=pytest.mark.slow)], ids=["accelerate", "torchrun"]
)
def test_two_processes_equal_one(
    run: Callable[..., Pretraining], tiny_recipe: Callable[..., Recipe], tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    """Two ranks of one run, on a machine without GPUs too: weights, teacher and centres to 1e-6 over gloo."""
    alone = run("alone", "model.drop_path=0")
    tiny_recipe("both")
    command = [sys.executable, "-m", *launcher, "pretrain.py", str(tmp_path / "both.yaml"), "model.drop_path=0"]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "both" / "metrics.jsonl").read_text().splitlines()) == STEPS
    both = load_file(tmp_path / "both" / "checkpoints" / f"step_{STEPS:08d}" / "method.safetensors")
    assert largest_difference(without_key_bias(states(alone)), without_key_bias(both)) < 1e-6


@pytest.mark.parametrize(
    "overrides",
    [
        ("optim.precision=bf16",),
        ("views.policy=imagenet",),
        ("method.region_weight=0", "views.local_sizes=[]", "views.local_counts=[]"),
        ("views.local_sizes=[12,8]", "views.local_counts=[1,2]", "method.centering=sinkhorn"),
        ("model.stem={group: C4, fields: 2, depth: 1, kernel_size: 3}",),
        ("optim.clip_norm=null", "method.head_batch_norm=true"),
    ],
)
def test_every_kind_of_run_trains(run: Callable[..., Pretraining], overrides: tuple[str, ...]) -> None:
    pretraining = run("kind", "optim.epochs=1", "optim.warmup_epochs=0", *overrides)
    untrained = torch.cat([p.flatten() for p in pretraining.method.teacher.parameters()])
    trained = torch.cat([p.detach().flatten() for p in pretraining.method.student.parameters()])
    assert trained.isfinite().all()
    assert 0 < float((trained - untrained).abs().max()) < 1


@pytest.mark.slow
def test_two_processes_stream_disjoint_images(
    tiny_recipe: Callable[..., Recipe], image_folder: Path, tmp_path: Path
) -> None:
    """Each with two readers: what both trained on in an epoch is every image once."""
    recipe = tmp_path / "both.yaml"
    tiny_recipe("both")
    script = tmp_path / "run.py"
    script.write_text(
        "import json, os, sys\n"
        "from pathlib import Path\n"
        "from ssl_lens.recipe.compose import compose\n"
        "from ssl_lens.recipe.recipe import load_recipe\n"
        "if __name__ == '__main__':\n"
        "    run = compose(load_recipe(sys.argv[1], sys.argv[3:]))\n"
        "    seen, make = [], run.views_at\n"
        "    def views(step):\n"
        "        seen.append([step, [i for index in run.indices_at(step) for i in index.tolist()]])\n"
        "        return make(step)\n"
        "    run.views_at = views\n"
        "    run.run()\n"
        "    Path(sys.argv[2] + os.environ['RANK']).write_text(json.dumps(seen))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29561", str(script)]
    command += [str(recipe), str(tmp_path / "seen"), f"data.path={shards_of(image_folder)}", "data.workers=2"]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"seen{rank}").read_text()) for rank in (0, 1)]
    for epoch in (0, 1):
        shares = [[i for step, index in rank if step // 3 == epoch for i in index] for rank in ranks]
        assert [len(share) for share in shares] == [12, 12]
        assert sorted(shares[0] + shares[1]) == list(range(24))


def test_every_step_has_the_views_of_its_own_epoch(tiny_recipe: Callable[..., Recipe]) -> None:
    """The views of an image follow from seed, epoch and index alone, so an image has other views in every epoch."""
    pretraining = compose(tiny_recipe("views", "views.local_counts=[1]"))
    seen: dict[int, list[Tensor]] = {}
    for step in range(STEPS):
        (index,), (views,) = pretraining.indices_at(step), tuple(pretraining.views_at(step))
        raw = pretraining.batches.at(step)[0][0]
        expected = pretraining.multicrop(pretraining.preprocess.linear(raw), index, seed=0, epoch=step // 3)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(views.all(), expected.all(), strict=True))
        for image, crop in zip(index.tolist(), views.global_crops[0], strict=True):
            seen.setdefault(image, []).append(crop)
    assert sorted(seen) == list(range(24))
    assert not any(torch.equal(first, second) for first, second in seen.values())


def test_images_left_out_reach_neither_training_nor_its_probe(
    tiny_recipe: Callable[..., Recipe], image_folder: Path, tmp_path: Path
) -> None:
    """Those that `data.exclude` names, and those that lie in a folder for tests."""
    (image_folder / "blob").rename(image_folder / "kept")
    excluded = ["kept/00.npy", "ring/05.npy"]
    (tmp_path / "names.txt").write_text("\n".join(excluded))
    pretraining = compose(tiny_recipe("a", f"data.exclude={tmp_path}/names.txt", f"data.probe={image_folder}"))
    assert len(pretraining.names) == 22
    assert not set(excluded) & set(pretraining.names)
    assert pretraining.reporter.watch.judge.names == pretraining.names

    for part in ("test", "train"):
        for kind in ("kept", "ring"):
            (image_folder / part / kind).mkdir(parents=True)
            for file in sorted((image_folder / kind).iterdir())[: 6 if part == "test" else 12]:
                file.rename(image_folder / part / kind / file.name)
    for kind in ("kept", "ring"):
        (image_folder / kind).rmdir()
    pretraining = compose(tiny_recipe("b", "optim.batch_size=4", f"data.probe={image_folder}"))
    assert len(pretraining.names) == 12
    assert all(name.startswith("train/") for name in pretraining.names)
    assert pretraining.reporter.watch.judge.names == pretraining.names


def test_a_batch_that_does_not_fit_says_by_its_keys_what_may(
    run: Callable[..., Pretraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(*given: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr("ssl_lens.methods.dino.DINO.losses", losses)
        with pytest.raises(InputError) as raised:
            run("large")
    assert "8 images at once, those of optim.batch_size=8 with optim.accumulate=1;" in str(raised.value)
    assert "set optim.accumulate=2," in str(raised.value)
    assert "run.resume=restart" in str(raised.value)
    assert run("large", "optim.accumulate=2", "run.resume=restart").start == 0
