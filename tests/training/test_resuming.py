"""A continued run equals an uninterrupted one."""

import csv
import shutil

import lightning
import pytest
import torch

from sfdfd.datasets.synthetic import ProceduralDataModule
from sfdfd.errors import InputError
from sfdfd.optics import DefocusRenderer
from sfdfd.training.augmentation import StackAugmentation
from sfdfd.training.callbacks import RunCheckpoint
from sfdfd.training.checkpoints import resume_position
from sfdfd.training.loggers import ResumableCSVLogger
from sfdfd.training.loop_position import loop_position_of
from sfdfd.training.resuming import AtomicCheckpointIO, newest_checkpoint
from tests.conftest import CAMERA, FOCUS_M
from tests.training.test_module import module

STEPS, SCENES, BATCH = 8, 7, 2
"""Three batches an epoch, one scene left out; validation after every second step, on any place in an epoch."""


def data(**options):
    return ProceduralDataModule(
        renderer=DefocusRenderer(sigma_scale=0.5), camera=CAMERA, focus_distances_m=FOCUS_M, near_m=0.5, far_m=10.0,
        height=24, width=32, train_length=SCENES, val_length=2, test_length=1, batch_size=BATCH, seed=3,
        **{"slices": 4, **options},
    )  # fmt: skip


class Watch(lightning.Callback):
    """What was trained on, each ``last.ckpt`` under its step, and a request to stop after a step."""

    def __init__(self, folder, stop_after=None):
        self.folder, self.stop_after, self.seen, self.validated = folder, stop_after, [], []

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        self.seen.append((trainer.current_epoch, batch_index, batch.name, batch.random_key))
        self.keep()

    def on_train_batch_end(self, trainer, *arguments):
        if trainer.global_step == self.stop_after:
            next(one for one in trainer.callbacks if isinstance(one, RunCheckpoint)).stopped_by = 15

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            self.validated.append(len(self.seen))

    def is_the_rest_of(self, whole):
        """Whether it saw the same batches and validated at the same of them."""
        before = len(whole.seen) - len(self.seen)
        validated = [before + at for at in self.validated]
        return self.seen == whole.seen[before:] and validated == [at for at in whole.validated if at > before]

    def keep(self):
        last = self.folder / "checkpoints" / "last.ckpt"
        if last.is_file():
            content = torch.load(last, weights_only=True)
            shutil.copy(last, self.folder / f"step{content['global_step']}.ckpt")


def fit(folder, ckpt_path=None, stop_after=None, steps=STEPS, options=None, **data_options):
    """Train to step 8, or stop after a step; the trainer, and what it saw."""
    lightning.seed_everything(0, verbose=False)
    model, datamodule = module(augmentation=StackAugmentation(crop=20)), data(**data_options)
    logger = ResumableCSVLogger(save_dir=str(folder), name=None, version="csv")
    if ckpt_path is not None:
        place = resume_position(model, ckpt_path)
        datamodule.continue_at(place.epoch, place.batches)
        logger.continue_from(place.step)
    saver = RunCheckpoint(
        dirpath=folder / "checkpoints", filename="best", monitor="val/reconstruction", save_last=True,
        enable_version_counter=False, last_every_s=0.0,
    )  # fmt: skip
    watch = Watch(folder, stop_after)
    trainer = lightning.Trainer(**{
        "max_steps": steps, "max_epochs": -1, "accelerator": "cpu", "logger": logger, "plugins": [AtomicCheckpointIO()],
        "enable_progress_bar": False, "enable_model_summary": False, "val_check_interval": 2,
        "check_val_every_n_epoch": None, "log_every_n_steps": 1, "use_distributed_sampler": False,
        "callbacks": [saver, watch], **(options or {}),
    })  # fmt: skip
    trainer.fit(model, datamodule, ckpt_path=ckpt_path, weights_only=True)
    logger.save()
    watch.keep()
    return trainer, watch


def weights(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def rows(folder):
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        return sorted(
            tuple(sorted((key, value) for key, value in row.items() if value)) for row in csv.DictReader(file)
        )


def assert_same(folder, other):
    for name in ("last", "best"):
        one, two = weights(folder, name), weights(other, name)
        assert all(torch.equal(one[key], two[key]) for key in one), name
    assert rows(folder) == rows(other)


pytestmark = pytest.mark.filterwarnings(
    "ignore:You're resuming from a checkpoint that ended before the epoch", "ignore:depth has collapsed",
    "ignore:.*exists and is not empty",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *fit(folder)


@pytest.mark.parametrize("step", range(1, STEPS - 1))
def test_a_run_killed_at_any_step_ends_like_the_uninterrupted_one(step, whole, tmp_path):
    """From what lay on the disk when that step was the last one written: weights, best checkpoint, curve, order, draws."""
    folder, _, watch = whole
    (tmp_path / "checkpoints").mkdir()
    shutil.copytree(folder / "csv", tmp_path / "csv")  # rows beyond the step are there as well, and are made anew
    path = tmp_path / "checkpoints" / "last.ckpt"
    shutil.copy(folder / f"step{step}.ckpt", path)
    content = torch.load(path, weights_only=True)
    state = next(value for key, value in content["callbacks"].items() if key.startswith("ModelCheckpoint"))
    if state["best_model_path"]:  # of this step's past, or of later: overwritten in any case, or the same
        shutil.copy(folder / "checkpoints" / "best.ckpt", tmp_path / "checkpoints" / "best.ckpt")
    _, again = fit(tmp_path, str(path))
    assert again.is_the_rest_of(watch) and len(again.seen) == STEPS - step
    assert_same(tmp_path, folder)


@pytest.mark.parametrize("step", range(1, STEPS - 1))
def test_a_run_stopped_after_any_step_ends_like_the_uninterrupted_one(step, whole, tmp_path):
    folder, _, watch = whole
    _, first = fit(tmp_path, stop_after=step)
    assert first.validated == [at for at in watch.validated if at <= step]  # stopping brings no validation of its own
    _, again = fit(tmp_path, str(tmp_path / "checkpoints" / "last.ckpt"))
    assert first.seen + again.seen == watch.seen
    assert_same(tmp_path, folder)


def test_a_run_stopped_several_times_ends_like_the_uninterrupted_one(whole, tmp_path):
    folder, _, watch = whole
    seen, path = [], None
    for step in (1, 2, 3, 5, None):
        _, part = fit(tmp_path, path, stop_after=step)
        seen, path = seen + part.seen, str(tmp_path / "checkpoints" / "last.ckpt")
    assert seen == watch.seen
    assert_same(tmp_path, folder)


def test_the_best_checkpoint_can_be_continued(whole, tmp_path):
    folder, _, watch = whole
    best = folder / "checkpoints" / "best.ckpt"
    step = torch.load(best, weights_only=True)["global_step"]
    _, again = fit(tmp_path, str(best), steps=STEPS + 2)
    assert again.seen[: STEPS - step] == watch.seen[step:]
    assert [step + at for at in again.validated] == list(range(step + 2, STEPS + 3, 2))


def run_of(whole, step, folder):
    """A run folder as it was when a step was the last one written."""
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(whole / f"step{step}.ckpt", folder / "checkpoints" / "last.ckpt")
    content = torch.load(whole / f"step{step}.ckpt", weights_only=True)
    state = next(value for key, value in content["callbacks"].items() if key.startswith("ModelCheckpoint"))
    content["callbacks"] = {"ModelCheckpoint{}": {**state, "current_score": state["best_model_score"]}}
    torch.save(content, folder / "checkpoints" / "best.ckpt")
    return float(state["best_model_score"])


@pytest.mark.parametrize("left", ["nothing", "another run"])
def test_a_moved_run_keeps_its_best_checkpoint(left, whole, tmp_path):
    """Whatever lies where it was: a run that began there since has a best of its own."""
    moved, was = tmp_path / "moved", tmp_path / "was"
    score = run_of(whole[0], 4, moved)
    best = (moved / "checkpoints" / "best.ckpt").read_bytes()
    content = torch.load(moved / "checkpoints" / "last.ckpt", weights_only=True)
    state = next(value for key, value in content["callbacks"].items() if key.startswith("ModelCheckpoint"))
    state |= {"dirpath": str(was / "checkpoints"), "best_model_path": str(was / "checkpoints" / "best.ckpt")}
    state |= {"best_k_models": {state["best_model_path"]: state["best_model_score"] * 0 - 1.0}}
    state["best_model_score"] = state["best_model_score"] * 0 - 1.0  # no later step beats it
    torch.save(content, moved / "checkpoints" / "last.ckpt")
    if left == "another run":
        run_of(whole[0], 2, was)
    trainer, _ = fit(moved, str(moved / "checkpoints" / "last.ckpt"))
    saver = trainer.checkpoint_callback
    assert score > 0 and float(saver.best_model_score) == -1.0
    assert saver.best_model_path == str(moved / "checkpoints" / "best.ckpt")
    assert (moved / "checkpoints" / "best.ckpt").read_bytes() == best


def test_the_best_checkpoint_of_a_copied_run_is_found_by_its_score(whole, tmp_path):
    """Continued in a third folder from a copy of last.ckpt alone: the best comes from where it was written."""
    score = run_of(whole[0], 6, tmp_path / "run")
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    state = next(value for key, value in content["callbacks"].items() if key.startswith("ModelCheckpoint"))
    recorded = str(tmp_path / "run" / "checkpoints" / "best.ckpt")
    state |= {"dirpath": str(tmp_path / "run" / "checkpoints"), "best_model_path": recorded}
    state["best_k_models"] = {recorded: state["best_model_score"]}
    (tmp_path / "backup").mkdir()
    torch.save(content, tmp_path / "backup" / "last.ckpt")
    (tmp_path / "backup" / "best.ckpt").write_bytes(b"of something else")
    trainer, _ = fit(tmp_path / "third", str(tmp_path / "backup" / "last.ckpt"), steps=7)
    assert float(trainer.checkpoint_callback.best_model_score) <= score
    best = torch.load(tmp_path / "third" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] <= 7 and trainer.checkpoint_callback.best_model_path.startswith(str(tmp_path / "third"))


@pytest.mark.parametrize("options", [
    {"workers": 2}, {"in_memory": False}, {"synthesise_on": "device"}, {"workers": 1, "in_memory": False},
], ids=str)  # fmt: skip
def test_workers_and_memory_do_not_change_the_weights(options, whole, tmp_path):
    folder, _, watch = whole
    _, other = fit(tmp_path, **options)
    assert other.seen == watch.seen
    one, two = weights(folder), weights(tmp_path)
    if "synthesise_on" in options:  # a batch rounds unlike its samples by 7e-7: two of 147,456 pixels are the next code
        assert float(torch.cat([(one[key] - two[key]).abs().flatten() for key in one]).mean()) < 1e-5
    else:
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_workers_continue_in_the_middle_of_an_epoch(whole, tmp_path):
    folder, _, watch = whole
    _, again = fit(tmp_path, str(folder / "step4.ckpt"), workers=2)
    assert again.seen == watch.seen[4:]
    assert all(torch.equal(weights(folder)[key], value) for key, value in weights(tmp_path).items())


@pytest.mark.parametrize("options", [
    {"max_steps": -1, "max_epochs": 3}, {"accumulate_grad_batches": 2, "max_steps": 5},
    {"max_steps": -1, "max_epochs": 3, "val_check_interval": 3}, {"val_check_interval": 3}, {"limit_val_batches": 0},
], ids=str)  # fmt: skip
@pytest.mark.slow
def test_runs_continue_with_other_limits_and_intervals(options, tmp_path):
    """Epochs for an end, gradients of several batches, validation at the end of epochs, none at all."""
    folder = tmp_path / "whole"
    _, watch = fit(folder, options=options)
    for path in sorted(folder.glob("step*.ckpt")):
        step = int(path.stem[4:])
        if step >= torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]:
            continue
        _, again = fit(tmp_path / path.stem, str(path), options=options)
        assert again.is_the_rest_of(watch)
        assert all(torch.equal(weights(folder)[key], value) for key, value in weights(tmp_path / path.stem).items())


def test_the_newest_complete_checkpoint_is_found_among_broken_ones(whole, tmp_path):
    folder = whole[0]
    assert newest_checkpoint(tmp_path / "nowhere") == (None, [])
    shutil.copy(folder / "step2.ckpt", tmp_path / "best.ckpt")
    shutil.copy(folder / "step4.ckpt", tmp_path / "middle.ckpt")
    content = (folder / "step6.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(content[: len(content) // 2])
    path, broken = newest_checkpoint(tmp_path)
    assert path == tmp_path / "middle.ckpt" and len(broken) == 1 and "last.ckpt" in broken[0]
    (tmp_path / "last.ckpt").write_bytes(content)
    assert newest_checkpoint(tmp_path) == (tmp_path / "last.ckpt", [])
    weights_alone = torch.load(tmp_path / "last.ckpt", weights_only=True)
    del weights_alone["optimizer_states"]
    torch.save(weights_alone, tmp_path / "last.ckpt")
    assert newest_checkpoint(tmp_path)[0] == tmp_path / "middle.ckpt"


def test_loop_positions_are_those_of_the_run(whole):
    for step in range(1, STEPS - 1):
        place = loop_position_of(torch.load(whole[0] / f"step{step}.ckpt", weights_only=True))
        assert place == (step, step // 3, step % 3)


@pytest.mark.parametrize("fault", ["killed while writing", "no space"])
def test_a_checkpoint_is_complete_or_the_previous_one(fault, tmp_path, monkeypatch):
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"a": torch.arange(5)}, path)

    def fails(content, file):
        file.write(b"half")
        raise KeyboardInterrupt if fault == "killed while writing" else OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fails)
        with pytest.raises((KeyboardInterrupt, OSError)):
            io.save_checkpoint({"a": torch.arange(9)}, path)
    assert torch.load(path, weights_only=True)["a"].tolist() == [0, 1, 2, 3, 4]
    (tmp_path / ".last.ckpt.1.part").write_bytes(b"left by a process that was killed")
    io.save_checkpoint({"a": torch.arange(3)}, path)
    assert [one.name for one in tmp_path.iterdir()] == ["last.ckpt"]


def test_weights_alone_cannot_be_continued(whole, tmp_path):
    content = torch.load(whole[0] / "step2.ckpt", weights_only=True)
    del content["optimizer_states"]
    torch.save(content, tmp_path / "weights.ckpt")
    with pytest.raises(InputError, match="checkpoint="):
        resume_position(module(), tmp_path / "weights.ckpt")
