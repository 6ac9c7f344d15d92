"""Shards in the WebDataset layout hold the same stacks as folders."""

import gc
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from sfdfd.datasets.discovery import find_stacks
from sfdfd.datasets.shards import Shard, ShardedStacks, read_shards, write_shard
from sfdfd.datasets.stack_folders import StackFolders
from sfdfd.errors import InputError
from sfdfd.io.images import write_image
from tests.commands import inside, one_line


@pytest.fixture(scope="module")
def stacks_folder(tmp_path_factory):
    """Seven stacks of three slices with depth, named so that order matters."""
    root = tmp_path_factory.mktemp("many")
    generator = torch.Generator().manual_seed(0)
    for index in range(7):
        folder = root / f"s{index}"
        folder.mkdir()
        for slice_ in range(3):
            write_image(folder / f"{slice_}.png", torch.rand(3, 24, 32, generator=generator))
        (folder / "truth").mkdir()
        np.save(folder / "truth" / "depth 100%.npy", np.full((24, 32), 1.0 + 0.1 * index, np.float32))
        description = {
            "camera": {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": 1.2e-5},
            "focus_distances_m": [1, 2, 4], "near_m": 0.8, "far_m": 5.0, "truth": {"depth_m": "truth/depth 100%.npy"},
        }  # fmt: skip
        (folder / "stack.yaml").write_text(yaml.safe_dump(description))
    return root


@pytest.fixture(scope="module")
def shards_folder(stacks_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    inside("shard", f"stacks='{stacks_folder}'", "per_shard=3", f"output_dir='{folder}'", cwd=folder)
    return folder


def test_shards_return_the_stacks_of_the_folders(stacks_folder, shards_folder):
    folders, shards = StackFolders(stacks_folder), ShardedStacks(read_shards(shards_folder))
    assert [path.name for path in sorted(shards_folder.glob("*.tar"))] == [f"stacks-00000{i}.tar" for i in range(3)]
    assert len(shards) == len(folders) == 7
    for one, other in zip(folders, shards, strict=True):
        assert one.name == other.name and torch.equal(one.images, other.images)
        assert torch.equal(one.depth_m, other.depth_m) and one.camera == other.camera
    chosen = ShardedStacks(read_shards(shards_folder), names=["s5", "s1"])
    assert [stack.name[0] for stack in chosen] == ["s5", "s1"]


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # it leaves files open
def test_webdataset_reads_shards(stacks_folder, shards_folder):
    """An independent reader of the layout."""
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(shards_folder.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"s{i}" for i in range(7)]
    for sample in samples:
        folder = stacks_folder / sample["__key__"]
        for file in [path for path in folder.rglob("*") if path.is_file()]:
            name = (
                str(file.relative_to(folder)).replace("%", "%25").replace("/", "%2F").lower()
            )  # its keys are lower case
            assert sample[name] == file.read_bytes()
    gc.collect()


def test_training_on_shards_equals_training_on_folders(stacks_folder, shards_folder, tmp_path):
    small = ["trainer.max_steps=2", "module.augmentation.crop=16", "network.width=8", "network.depth=2", "pictures=0",
             "threads=1", "data.batch_size=2", "callbacks.pictures.samples=1"]  # fmt: skip
    for data, root in (("stacks", stacks_folder), ("shards", shards_folder)):
        inside("train", f"data={data}", f"data.root='{root}'", f"output_dir={data}", *small, cwd=tmp_path)
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("stacks", "shards"))
    assert one["depth/abs_rel"] == two["depth/abs_rel"] and one["protocol"]["stacks"] == two["protocol"]["stacks"] == 7


def test_packing_again_keeps_shards_and_replaces_missing_ones(stacks_folder, tmp_path):
    call = ["shard", f"stacks='{stacks_folder}'", "per_shard=4", "output_dir=s"]
    inside(*call, cwd=tmp_path)
    first, second = sorted((tmp_path / "s").glob("*.tar"))
    bytes_before, time_before = second.read_bytes(), first.stat().st_mtime_ns
    second.unlink()
    inside(*call, cwd=tmp_path)
    assert second.read_bytes() == bytes_before and first.stat().st_mtime_ns == time_before


def packed_again(folder, *arguments):
    """Which shards a call writes, and what all of them hold."""
    before = {path.name: path.stat().st_ino for path in (folder / "s").glob("*.tar")}
    inside("shard", "stacks=in", "output_dir=s", *arguments, cwd=folder)
    shards = read_shards(folder / "s")
    written = [one.path.name for one in shards if before.get(one.path.name) != one.path.stat().st_ino]
    return written, [list(one.stacks) for one in shards]


def test_packing_again_follows_changed_and_removed_sources(stacks_folder, tmp_path):
    """A value of the same length, a truth that is gone, a stack and a split that are gone, another number of stacks."""
    shutil.copytree(stacks_folder, tmp_path / "in")
    (tmp_path / "in" / "splits").mkdir()
    for split in ("train", "val"):
        (tmp_path / "in" / "splits" / f"{split}.txt").write_text("s1\n")
    written, held = packed_again(tmp_path, "per_shard=3")
    assert len(written) == 3 and packed_again(tmp_path, "per_shard=3") == ([], held)
    description = tmp_path / "in" / "s4" / "stack.yaml"
    description.write_text(description.read_text().replace("f_number: 8.0", "f_number: 2.0"))
    assert packed_again(tmp_path, "per_shard=3") == (["stacks-000001.tar"], held)
    assert ShardedStacks(read_shards(tmp_path / "s"), ["s4"])[0].camera[0].f_number == 2.0
    (tmp_path / "in" / "s0" / "2.png").unlink()
    assert packed_again(tmp_path, "per_shard=3") == (["stacks-000000.tar"], held)
    shutil.rmtree(tmp_path / "in" / "s6")
    (tmp_path / "in" / "splits" / "val.txt").unlink()
    (tmp_path / "s" / "splits" / "mine.txt").write_text("s1\n")
    assert packed_again(tmp_path, "per_shard=3") == ([], held[:2])
    assert sorted(path.name for path in (tmp_path / "s" / "splits").iterdir()) == ["mine.txt", "train.txt"]
    assert packed_again(tmp_path, "per_shard=5")[1] == [["s0", "s1", "s2", "s3", "s4"], ["s5"]]
    cut = tmp_path / "s" / "stacks-000001.tar"
    cut.write_bytes(cut.read_bytes()[:700])
    assert packed_again(tmp_path, "per_shard=5")[0] == ["stacks-000001.tar"]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_names_may_be_long(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    stack = tmp_path / ("long" * 30)
    long = Path("slices-" * 20) / f"{'focused at ' * 10}1.25 m é.png"
    (stack / long).parent.mkdir(parents=True)
    (stack / long).write_bytes(b"slice")
    (stack / "stack.yaml").write_bytes(b"{}")
    write_shard(tmp_path / "x.tar", [stack])
    unpacked = Shard.of(tmp_path / "x.tar").unpack(stack.name, tmp_path / "out")
    assert (unpacked / long).read_bytes() == b"slice" and (unpacked / "stack.yaml").read_bytes() == b"{}"
    (sample,) = webdataset.WebDataset([str(tmp_path / "x.tar")], shardshuffle=False)
    assert sample["__key__"] == stack.name and b"slice" in sample.values()
    gc.collect()


def test_predict_finds_the_stacks_of_shards(shards_folder, stacks_folder, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(shards_folder / "stacks-000002.tar", tmp_path / "in")
    common = ["refine.steps=1", "working_px=32", "align.mode=false", "threads=1"]
    inside("predict", "stacks=in", "output_dir=many", *common, cwd=tmp_path)
    inside("predict", f"stack='{stacks_folder}/s6'", "output_dir=one", *common, cwd=tmp_path)
    assert np.array_equal(*(np.load(tmp_path / f / "depth_m.npy") for f in ("many/s6", "one")))
    assert "skipped" in inside("predict", "stacks=in", "output_dir=many", *common, cwd=tmp_path).stdout


def tar_of(path, name):
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))


def test_malformed_shards_are_reported(stacks_folder, shards_folder, tmp_path):
    for name, words in (("up/a.png", "no member"), ("nothing", "no member"), (".hidden", "no member"),
                        ("s...%2Fup", "is no path below"), ("s.%2Fetc%2Fx", "is no path below")):  # fmt: skip
        tar_of(tmp_path / "bad.tar", name)
        with pytest.raises(InputError, match=words):
            Shard.of(tmp_path / "bad.tar")
    (tmp_path / "bad.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(InputError, match="not a shard"):
        read_shards(tmp_path)
    whole = sorted(shards_folder.glob("*.tar"))[0]
    shutil.copy(whole, tmp_path / "bad.tar")
    shutil.copy(whole, tmp_path / "twice.tar")
    with pytest.raises(InputError, match=r"is in .*bad\.tar, too"):
        read_shards(tmp_path)
    shard = Shard.of(whole)
    with pytest.raises(InputError, match="no stack 'x'"):
        shard.unpack("x", tmp_path)
    (tmp_path / "twice.tar").unlink()
    (tmp_path / "bad.tar").write_bytes(whole.read_bytes()[:6000])
    cut = Shard(tmp_path / "bad.tar", shard.stacks)  # it was cut after the index was read
    with pytest.raises(InputError, match="it ends before"):
        cut.unpack("s2", tmp_path)
    with pytest.raises(InputError, match="the split names 1 stacks"):
        ShardedStacks(read_shards(shards_folder), names=["s1", "s9"])
    (tmp_path / "a.b").mkdir()
    with pytest.raises(InputError, match="a point in its name"):
        write_shard(tmp_path / "x.tar", [tmp_path / "a.b"])
    assert not (tmp_path / "x.tar").exists()
    done = inside("evaluate", "data=shards", f"data.root='{tmp_path}/none'", "output_dir=e", expect=2, cwd=tmp_path)
    assert "no such folder" in one_line(done.stderr)


def test_other_tar_files_are_skipped(stacks_folder, tmp_path):
    shutil.copytree(stacks_folder, tmp_path / "in")
    tar_of(tmp_path / "in" / "backup.tar", "home/me/letters.txt")
    found, passed = find_stacks(tmp_path / "in")
    assert [one.name for one in found] == [f"s{i}" for i in range(7)]
    assert len(passed) == 1 and "backup.tar" in passed[0] and "no member" in passed[0]
