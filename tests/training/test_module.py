"""The LightningModule: strict self-supervision, batches of several sizes, the schedule."""

import math
from dataclasses import replace
from functools import partial

import lightning
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from sfdfd.datasets.sources.base import write_splits, write_stack
from sfdfd.errors import InputError
from sfdfd.measures.losses import SelfSupervisedLoss
from sfdfd.measures.metrics import depth_metrics
from sfdfd.networks import DAIFNet, FocusAttentionNet
from sfdfd.optics import Camera, DefocusRenderer, render_focal_stack
from sfdfd.stack import FocalStack
from sfdfd.training.augmentation import StackAugmentation
from sfdfd.training.module import DepthFromDefocus
from tests.commands import SMALL, process
from tests.conftest import CAMERA


def stacks(number, seed=0, size=(32, 40)):
    generator = torch.Generator().manual_seed(seed)
    focus = torch.tensor([1.0, 2.0, 4.0])
    result = []
    for index in range(number):
        aif = torch.rand(3, *size, generator=generator)
        depth = 1 + 3 * torch.rand(1, 1, generator=generator).expand(size).clone()
        depth[:, size[1] // 2 :] += 1.0
        images = render_focal_stack(aif[None], depth[None], focus, CAMERA, sigma_scale=0.5)[0]
        valid = torch.ones(size, dtype=torch.bool)
        result.append(
            FocalStack.single(images, focus, CAMERA, 0.5, 10.0, name=str(index), depth_m=depth, aif=aif, valid=valid)
        )
    return result


def module(network=None, **options):
    return DepthFromDefocus(
        network or FocusAttentionNet(width=8, depth=2),
        DefocusRenderer(sigma_scale=0.5),
        SelfSupervisedLoss(sharpness=0.1, aif_blur=0.01),
        optimizer=partial(torch.optim.AdamW, lr=1e-3),
        **options,
    )


def train(model, training, validation, steps=4, callbacks=()):
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, val_check_interval=2, check_val_every_n_epoch=None, callbacks=list(callbacks),
    )  # fmt: skip
    load = partial(DataLoader, collate_fn=FocalStack.collate)
    trainer.fit(model, load(training, batch_size=2), load(validation, batch_size=1))
    return trainer


def trained_weights(spoil):
    lightning.seed_everything(3, verbose=False)
    model = module(augmentation=StackAugmentation(crop=24))
    trainer = train(model, [spoil(s) for s in stacks(4)], [spoil(s) for s in stacks(2, seed=9)])
    return model.state_dict(), float(trainer.callback_metrics["val/reconstruction"])


def test_an_invalid_optimizer_argument_is_an_input_error():
    model = module()
    model.make_optimizer = partial(torch.optim.AdamW, lr=-1.0)
    with pytest.raises(InputError, match="optimizer: Invalid learning rate"):
        model.configure_optimizers()


def test_truth_never_enters_training_or_selection():
    """With NaN for truth, in training and validation, the weights and the selection metric come out the same."""

    def nan_truth(stack):
        return replace(
            stack, depth_m=torch.full_like(stack.depth_m, torch.nan), aif=torch.full_like(stack.aif, torch.nan)
        )

    (with_truth, score), (with_nan, nan_score) = trained_weights(lambda s: s), trained_weights(nan_truth)
    without, none_score = trained_weights(lambda s: s.without_truth())
    initial = module().state_dict()
    assert score == nan_score == none_score
    for key, value in with_truth.items():
        assert torch.equal(value, with_nan[key]) and torch.equal(value, without[key]), key
    assert any(not torch.equal(value, initial[key]) for key, value in with_truth.items())


def test_terms_are_logged_by_name():
    model = module()
    trainer = train(model, stacks(4), stacks(2, seed=9))
    logged = set(trainer.logged_metrics) | set(trainer.callback_metrics)
    for term in ("reconstruction", "aif_consistency", "aif_blur", "smoothness", "sharpness", "total"):
        assert {f"train/{term}", f"val/{term}"} <= logged
    assert {"health/depth_std", "truth/depth_abs_rel"} <= logged


def test_learning_rate_warms_up_and_follows_a_cosine():
    model = module(warmup_steps=2, final_lr_share=0.1)
    rates = []

    class Record(lightning.Callback):
        def on_train_batch_start(self, trainer, *args):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    train(model, stacks(4), stacks(1), steps=20, callbacks=[Record()])
    assert rates[0] == pytest.approx(5e-4) and rates[1] == pytest.approx(1e-3) and max(rates) == pytest.approx(1e-3)
    assert rates[2:] == sorted(rates[2:], reverse=True) and rates[-1] < 2e-4


def test_the_models_camera_can_differ_from_the_datas():
    batch = FocalStack.collate(stacks(2))
    model = module()
    own = model(batch)
    model.camera = Camera(0.05, 16.0, 1.2e-5)
    torch.testing.assert_close(model(batch).defocus_px, own.defocus_px / 2)


def test_bfloat16_trains_and_keeps_the_optics_in_float32():
    model = module(DAIFNet(width=4, depth=2))
    trainer = lightning.Trainer(
        max_steps=2, accelerator="cpu", precision="bf16-mixed", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    load = partial(DataLoader, stacks(2), batch_size=2, collate_fn=FocalStack.collate)
    trainer.fit(model, load(), load())
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    assert model(FocalStack.collate(stacks(1))).rendered.dtype == torch.float32


@pytest.mark.parametrize("network", [FocusAttentionNet(width=8, depth=2), DAIFNet()])
def test_a_padded_batch_equals_its_stacks_one_by_one(network):
    """Through network, renderer, losses and metrics, and in the gradient."""
    model = module(network).eval()
    alone = [
        stacks(1, seed, size)[0].with_slices(range(n))
        for seed, size, n in ((0, (32, 40), 3), (1, (44, 33), 2), (2, (32, 40), 2))
    ]
    batch = FocalStack.collate(alone)
    predicted = model.predicted(batch)
    terms = model.compare(predicted)
    gradient = torch.autograd.grad(terms["total"].mean(), list(network.parameters()), allow_unused=True)
    together = {index: one.to("cpu") for indices, _, one in predicted for index in indices if len(indices) == 1}
    totals = []
    for index, stack in enumerate(alone):
        single = model.predicted(stack)
        if index in together:
            torch.testing.assert_close(together[index].depth_m, single[0][2].depth_m, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(together[index].aif, single[0][2].aif, rtol=1e-4, atol=1e-5)
        one = model.compare(single)
        for key, value in one.items():
            torch.testing.assert_close(terms[key][index], value[0], rtol=1e-3, atol=1e-4, msg=key)
        totals.append(one["total"])
    assert together
    expected = torch.autograd.grad(torch.cat(totals).mean(), list(network.parameters()), allow_unused=True)
    for found, wanted in zip(gradient, expected, strict=True):
        if wanted is not None:
            torch.testing.assert_close(found, wanted, rtol=2e-2, atol=1e-4 * float(wanted.abs().max()) + 1e-6)


def test_batches_of_several_sizes_train_on_crops():
    sizes = [(32, 40), (28, 50), (40, 30), (26, 26)]
    trainer = train(
        module(augmentation=StackAugmentation(crop=24)),
        [stacks(1, i, s)[0] for i, s in enumerate(sizes)],
        stacks(1),
        steps=2,
    )
    assert trainer.global_step == 2 and torch.isfinite(trainer.callback_metrics["val/reconstruction"])
    batch = FocalStack.collate([stacks(1, i, s)[0] for i, s in enumerate(sizes)])
    cropped = FocalStack.collate([StackAugmentation(crop=24)(part) for _, part in batch.split_by_size()])
    assert cropped.images.shape == (4, 3, 3, 24, 24) and cropped.size_px is None and bool(cropped.valid.all())


class Watched(torch.nn.Module):
    """A network that keeps its inputs."""

    requires_defocus = False

    def __init__(self):
        super().__init__()
        self.network, self.seen = FocusAttentionNet(width=8, depth=2), []

    def forward(self, images, focus_distances_m, *others, **known):
        self.seen.append((images, focus_distances_m))
        return self.network(images, focus_distances_m, *others, **known)


def test_left_out_slices_enter_the_loss_but_not_the_network():
    """What the left-out slice shows changes the loss and not the answer; another random_key leaves out another."""
    network = Watched()
    model = module(network, left_out=1)
    batch = replace(FocalStack.collate(stacks(4)).without_truth(), random_key=(1, 2, 3, 4))
    first = model(batch)
    images, focus_m = network.seen[0]
    assert images.shape[1] == 2 and first.rendered.shape == batch.images.shape
    out = [
        int((one[:, None] != kept).all(1).nonzero()[0])
        for one, kept in zip(batch.focus_distances_m, focus_m, strict=True)
    ]
    assert len(set(out)) > 1
    for index, left in enumerate(out):
        kept = [k for k in range(3) if k != left]
        assert torch.equal(images[index], batch.images[index, kept])
    other = batch.images.clone()
    for index, left in enumerate(out):
        other[index, left] = 1 - other[index, left]
    lies = replace(batch, images=other)
    assert torch.equal(model(lies).depth_m, first.depth_m)
    losses = [model.compare(model.predicted(one))["reconstruction"] for one in (batch, lies)]
    assert bool((losses[1] > losses[0] + 0.01).all())
    model.eval()
    assert model(batch).rendered.shape == batch.images.shape and network.seen[-1][0].shape[1] == 3


def test_the_network_sees_at_least_two_slices():
    network = Watched()
    module(network, left_out=7)(FocalStack.collate(stacks(2)))
    assert network.seen[0][0].shape[1] == 2
    with pytest.raises(InputError, match="left_out"):
        module(left_out=-1)


def test_training_works_if_only_some_stacks_have_truth():
    """And the truth that is logged is the mean over the images that have some, at every validation."""
    seeing = stacks(4, seed=1)
    nowhere = replace(seeing[1], valid=torch.zeros_like(seeing[1].valid))
    some = [seeing[0].without_truth(), seeing[0], nowhere, seeing[2]]
    logged = []
    follow = lightning.pytorch.callbacks.LambdaCallback(
        on_validation_end=lambda trainer, _: logged.append({k: float(v) for k, v in trainer.callback_metrics.items()})
    )
    model = module(augmentation=StackAugmentation(crop=24))
    train(model, some, some, steps=4, callbacks=[follow])
    assert len(logged) == 3  # one of them before training
    model.eval()
    for key in ("abs_rel", "rmse"):
        with torch.no_grad():
            values = [float(depth_metrics(model(s).depth_m, s.depth_m, s.valid)[key]) for s in (some[1], some[3])]
        assert logged[-1][f"truth/depth_{key}"] == pytest.approx(np.mean(values), rel=1e-4)
        assert all(math.isfinite(one[f"truth/depth_{key}"]) for one in logged)
    train(module(), some[:1], some[:1], steps=2, callbacks=[follow])
    assert not [key for key in logged[-1] if key.startswith("truth")]


@pytest.mark.slow
def test_processes_do_not_deadlock_if_one_has_no_truth(tmp_path):
    """Of two validation stacks, one for each process, the second alone has depth."""
    camera = {"focal_length_m": 0.05, "f_number": 2.8, "pixel_pitch_m": 4e-5}
    rng = np.random.default_rng(0)
    for index in range(8):
        slices = [rng.integers(0, 255, (32, 40, 3), dtype=np.uint8) for _ in range(3)]
        depth_m = rng.uniform(0.6, 3, (32, 40)) if index in (0, 5) else None
        write_stack(tmp_path / "in", f"s{index}", slices, camera, [0.8, 1.2, 2.0], 0.5, 4.0, depth_m)
    write_splits(tmp_path / "in", {"train": ["s0", "s1", "s2", "s3"], "val": ["s4", "s5"], "test": ["s6", "s7"]})
    process("train", "data=stacks", "data.root=in", "trainer=ddp_cpu", *SMALL[5:], "data.batch_size=2",
            "trainer.max_steps=1", "trainer.val_check_interval=1", "output_dir=r", cwd=tmp_path)  # fmt: skip
    assert "truth/depth_abs_rel" in (tmp_path / "r" / "csv" / "metrics.csv").read_text()
