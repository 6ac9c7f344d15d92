"""External programs as contestants: one that works, and all the ways in which one may not."""

import sys
import time

import numpy as np
import pytest
import torch

from sfdfd.errors import InputError
from sfdfd.inference.answers import Answer, check_answer, measured
from sfdfd.inference.contestants import CommandContestant, FolderContestant, MethodContestant, write_answer
from sfdfd.scenes.example_stack import example_stack

PROGRAM = """
import sys, time
from pathlib import Path
import numpy as np, yaml
import imageio.v3 as iio
given, written = Path(sys.argv[1]), Path(sys.argv[2])
stack = yaml.safe_load((given / "stack.yaml").read_text())
images = [iio.imread(given / name) for name in stack["files"]]
assert len(images) == len(stack["focus_distances_m"]) and "truth" not in stack
size = images[0].shape[:2]
{body}
"""
WORKS = "np.save(written / 'depth.npy', np.full(size, stack['near_m'])); iio.imwrite(written / 'aif.png', images[0])"


@pytest.fixture(scope="module")
def stack():
    return example_stack().without_truth()


def contestant(tmp_path, body, **options):
    (tmp_path / "a program.py").write_text(PROGRAM.format(body=body))
    return CommandContestant("peer", f"{{python}} '{tmp_path}/a program.py' {{input}} {{output}}", **options)


def solved(tmp_path, stack, body, **options):
    peer = contestant(tmp_path, body, **options)
    answer = peer.solve(stack)
    check_answer(answer, stack, peer.depth_kind)
    return answer


def test_a_program_reads_the_stack_and_its_answer_is_read_back(tmp_path, stack):
    answer = solved(tmp_path, stack, WORKS)
    assert torch.allclose(answer.depth, stack.near_m[0].expand_as(answer.depth))
    assert torch.allclose(answer.aif, stack.images[0, 0], atol=0.6 / 255)
    assert answer.cost.seconds > answer.cost.cpu_seconds * 0.1 > 0
    assert answer.cost.peak_gib is None or 0.005 < answer.cost.peak_gib < 1
    assert solved(tmp_path, stack, "iio.imwrite(written / 'aif.png', images[0])").depth is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit('no licence found')", "exit code 1: .*no licence found"),
        ("pass", "neither depth nor an all-in-focus image"),
        ("np.save(written / 'depth.npy', np.ones((3, 4)))", "depth: expected shape"),
        ("np.save(written / 'depth.npy', np.ones((*size, 1)))", "expected numbers of shape"),
        ("np.save(written / 'depth.npy', np.full(size, np.nan))", "not finite"),
        ("np.save(written / 'depth.npy', np.zeros(size))", "not positive"),
        ("np.save(written / 'depth.npy', np.array([object()]), allow_pickle=True)", "not readable"),
        ("(written / 'depth.npy').write_bytes(b'')", "not readable"),
        ("iio.imwrite(written / 'aif.png', images[0][..., 0])", "three colours"),
        ("(written / 'aif.png').write_bytes(b'no picture')", "not readable"),
    ],
)
def test_a_program_that_fails_says_how(tmp_path, stack, body, message):
    with pytest.raises(InputError, match=message):
        solved(tmp_path, stack, body)


def test_a_slow_program_is_ended_with_its_children(tmp_path, stack):
    mark = tmp_path / "mark"
    child = f"import time, pathlib; time.sleep(4); pathlib.Path({str(mark)!r}).touch()"
    body = f"import subprocess; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    begun = time.monotonic()
    with pytest.raises(InputError, match="took longer than 2 s"):
        solved(tmp_path, stack, body, timeout_s=2)
    assert time.monotonic() - begun < 20
    time.sleep(5)
    assert not mark.exists()


def test_a_program_that_is_not_there_cannot_start(stack):
    with pytest.raises(InputError, match="cannot start nowhere-to-be-found"):
        CommandContestant("peer", "nowhere-to-be-found {input} {output}").solve(stack)


def test_inverse_depth_may_be_zero_or_negative(tmp_path, stack):
    body = "np.save(written / 'depth.npy', np.linspace(-1, 1, size[0] * size[1]).reshape(size))"
    assert float(solved(tmp_path, stack, body, depth_kind="inverse").depth.min()) == -1


def test_answers_are_written_as_they_are_read(tmp_path, stack):
    depth = torch.from_numpy(np.random.default_rng(0).random((48, 64), np.float32)) + 1
    write_answer(tmp_path / "set" / stack.name[0], Answer(depth, stack.images[0, 0]))
    found = FolderContestant("files", tmp_path / "set").solve(stack)
    assert torch.equal(found.depth, depth) and torch.allclose(found.aif, stack.images[0, 0], atol=0.6 / 255)
    with pytest.raises(InputError, match="no prediction of this stack"):
        FolderContestant("files", tmp_path).solve(stack)


def test_a_callable_that_returns_something_else_is_named(stack):
    with pytest.raises(InputError, match="expected a Prediction, got int"):
        MethodContestant("odd", lambda stack: 3).solve(stack)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_peak_of_memory_is_that_of_the_block():
    with measured() as first:
        block = bytearray(300 << 20)
        block[::4096] = b"x" * len(block[::4096])
        del block
    with measured() as second:
        pass
    assert first.peak_gib > second.peak_gib + 0.2
