"""Failures of disks, data, losses and processes end in one line, or the run continues."""

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
def test_failures_of_the_machine_are_described(error, words):
    found = describe_fault(error)
    assert words in found and "\n" not in found


@pytest.mark.parametrize(
    "error", [RuntimeError("shape '[2]' is invalid"), KeyError("a"), OSError(errno.ENOENT, "gone")]
)
def test_bugs_are_not_described(error):
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
def test_a_dead_or_hanging_worker_ends_the_run_with_one_line(how, tmp_path, monkeypatch):
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


def test_missing_and_broken_samples_are_skipped_and_counted(rgbd, capfd):
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
    assert capfd.readouterr().err.count("skipped sample 3") == 1  # one message
    raising = rgbd_module(rgbd, in_memory=False).dataset(
        "train"
    )  # data.on_error=raise; the frame that is gone is not listed
    with pytest.raises((InputError, OSError)):
        raising[4]


def test_a_data_set_without_readable_samples_is_an_error():
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
def test_steps_with_nonfinite_loss_change_no_weights(key):
    model = module(Spoils({2, 3}, key), skip_nonfinite=2)
    train(model, stacks(4), stacks(1), steps=4)
    assert model.nonfinite_steps == 2 and all(bool(torch.isfinite(p).all()) for p in model.parameters())


@pytest.mark.parametrize("key", ["aif", "depth_m"])
def test_one_nonfinite_step_too_many_ends_the_run_and_saves_its_batch(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = module(Spoils({2}, key))
    with pytest.raises(InputError, match=r"step 1: the loss is not finite .*module\.skip_nonfinite"):
        train(model, stacks(4), stacks(1), steps=4)
    content = torch.load(tmp_path / "nonfinite_1.pt", weights_only=True)
    assert content["batch"]["images"].shape[0] == 2 and not bool(torch.isfinite(content["loss"]).all())
    assert all(bool(torch.isfinite(value).all()) for value in content["state_dict"].values())
    assert np.isfinite(content["batch"]["images"].numpy()).all()


def test_nonfinite_depth_in_validation_is_an_input_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = module()
    for parameter in model.parameters():
        parameter.data.fill_(torch.inf)
    with pytest.raises(InputError, match=r"depth is not finite: .* optimizer\.lr"):
        model.validation_step(stacks(1)[0], 0)
