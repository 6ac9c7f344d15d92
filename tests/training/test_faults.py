"""Faults of disks, data, losses and processes end in one line, or the run goes on."""

import errno
import os

import numpy as np
import pytest
import torch

from sfdfd.datasets.wrappers import SkipBroken
from sfdfd.errors import InputError
from sfdfd.training.faults import describe_fault
from tests.conftest import rgbd_module
from tests.training.test_module import module, stacks, train
from tests.training.test_resuming import fit


@pytest.mark.parametrize(("error", "words"), [
    (OSError(errno.ENOSPC, "No space left on device", "last.ckpt"), "last.ckpt: No space left on device; continue with"),
    (OSError(errno.EROFS, "Read-only file system"), "Read-only"),
    (RuntimeError("DataLoader worker (pid(s) 17, 18) exited unexpectedly"), "data.workers=0"),
    (RuntimeError("DataLoader timed out after 3 seconds"), "data.worker_timeout_s"),
    (RuntimeError("[/gloo/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"), "another process of the run died"),
    (RuntimeError("-- Process 1 terminated with the following error:\nsfdfd.errors.InputError: step 3: no"), "step 3: no"),
])  # fmt: skip
def test_faults_are_said(error, words):
    found = describe_fault(error)
    assert words in found and "\n" not in found


@pytest.mark.parametrize(
    "error", [RuntimeError("shape '[2]' is invalid"), KeyError("a"), OSError(errno.ENOENT, "gone")]
)
def test_bugs_are_not(error):
    assert describe_fault(error) is None


class Dies(torch.utils.data.Dataset):
    def __init__(self, how):
        self.how, self.stack = how, stacks(1)[0]

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if torch.utils.data.get_worker_info() is not None and index == 2:
            os._exit(9) if self.how == "crash" else __import__("time").sleep(60)
        return self.stack


@pytest.mark.parametrize("how", ["crash", "hang"])
def test_a_worker_that_dies_or_hangs_ends_the_run_in_a_line(how, tmp_path, monkeypatch):
    from tests.training import test_resuming as resuming

    make = resuming.data

    def data(**options):
        made = make(**options, workers=1, worker_timeout_s=3.0, in_memory=False)
        made._datasets["train"] = Dies(how)
        return made

    monkeypatch.setattr(resuming, "data", data)
    with pytest.raises(RuntimeError) as caught:
        fit(tmp_path, slices=None)
    assert "data.workers=0" in describe_fault(caught.value)


def test_a_sample_that_is_gone_or_broken_is_passed_over_and_counted(rgbd, capfd):
    datamodule = rgbd_module(rgbd, on_error="skip", in_memory=False)
    train_set = datamodule.dataset("train")
    whole = [train_set[i].name[0] for i in range(len(train_set))]
    (rgbd / "rgb" / "0003.png").unlink()
    (rgbd / "depth" / "0005.png").write_bytes(b"no image")
    names = [train_set[i].name[0] for i in range(len(train_set))]
    expected = list(whole)
    expected[3], expected[5] = whole[4], whole[6]
    assert names == expected and datamodule.skipped() == {"train": [3, 5]}
    assert [train_set[3].name[0] for _ in range(2)] == [whole[4]] * 2
    assert capfd.readouterr().err.count("skipped sample 3") == 1  # said once
    raising = rgbd_module(rgbd, in_memory=False).dataset(
        "train"
    )  # data.on_error=raise; the frame that is gone is not listed
    with pytest.raises((InputError, OSError)):
        raising[4]


def test_a_data_set_of_which_nothing_is_left_is_an_error():
    class Gone(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            raise InputError("gone")

    with pytest.raises(InputError, match="every sample"):
        SkipBroken(Gone())[0]


class Spoils(torch.nn.Module):
    """A network whose AIF, or depth, is NaN at some calls."""

    requires_defocus = False

    def __init__(self, at, key="aif"):
        super().__init__()
        from sfdfd.networks import FocusAttentionNet

        self.inner, self.at, self.calls, self.key = FocusAttentionNet(width=8, depth=2), at, 0, key

    def forward(self, *arguments, **options):
        out = self.inner(*arguments, **options)
        if self.training:
            self.calls += 1
            if self.calls in self.at:
                out = out._replace(**{self.key: getattr(out, self.key) * torch.nan})
        return out


@pytest.mark.filterwarnings("ignore:step")
@pytest.mark.parametrize("key", ["aif", "depth_m"])  # depth that is no number cannot even be rendered
def test_steps_without_a_finite_loss_move_no_weight(key):
    model = module(Spoils({2, 3}, key), skip_nonfinite=2)
    train(model, stacks(4), stacks(1), steps=4)
    assert model.nonfinite_steps == 2 and all(bool(torch.isfinite(p).all()) for p in model.parameters())


@pytest.mark.parametrize("key", ["aif", "depth_m"])
def test_one_too_many_ends_the_run_with_its_batch_saved(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = module(Spoils({2}, key))
    with pytest.raises(InputError, match=r"step 1: the loss is not finite .*module\.skip_nonfinite"):
        train(model, stacks(4), stacks(1), steps=4)
    content = torch.load(tmp_path / "nonfinite_1.pt", weights_only=True)
    assert content["batch"]["images"].shape[0] == 2 and not bool(torch.isfinite(content["loss"]).all())
    assert all(bool(torch.isfinite(value).all()) for value in content["state_dict"].values())
    assert np.isfinite(content["batch"]["images"].numpy()).all()


def test_a_network_that_is_beyond_numbers_at_validation_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = module()
    for parameter in model.parameters():
        parameter.data.fill_(torch.inf)
    with pytest.raises(InputError, match=r"depth is not finite: .* optimizer\.lr"):
        model.validation_step(stacks(1)[0], 0)
