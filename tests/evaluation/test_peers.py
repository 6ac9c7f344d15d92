"""The adapters of peers, each on a stub in place of the peer: what they read, call and write."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sfdfd.inference.contestants import contestants_of, read_answer, write_input
from sfdfd.scenes.example_stack import example_stack

PEERS = Path(__file__).resolve().parents[2] / "benchmarks" / "peers"
OPENFOCUS = """
class MultiFocusFusion:
    def __init__(self, algorithm): assert algorithm == "dtcwt"
    def fuse(self, images): return images[1]
"""
STACKMFF = """
import torch
class StackMFF_V2(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
    def forward(self, images):
        assert images.shape[-2] % 32 == images.shape[-1] % 32 == 0
        return images.mean(1), images[:, 0], torch.full_like(images[:, :1], 2)
"""
DFD = {
    "utils": "def kernel_size_heuristic(width, height): return 7",
    "config": "class MAKE3D: aif_lambda, aif_sharpness_measure, num_z, t_0, alpha, window_size = .05, 'x', 10, 1, 2.0, 5",
    "dataset_params": "from types import SimpleNamespace as DatasetParams",
    "initialization": "def compute_aif_initialization(images, *options): return images[0]",
    "alternating_minimization": (
        "import numpy as np\n"
        "def alternating_minimization(images, camera, kernel, num_epochs, aif_init, **options):\n"
        "    assert images.max() > 1.5 and abs(camera.D - camera.f / 8) < 1e-9 and (kernel, num_epochs) == (7, 5)\n"
        "    return np.full(images.shape[1:3], camera.min_Z), aif_init, 1, None"
    ),
}
LOADER = """
import numpy as np
def load(images, focus_m, stack, checkpoint):
    assert images.max() <= 1 and checkpoint.name == "weights.pth" and len(focus_m) == len(images)
    return np.full(images.shape[1:3], focus_m[0]), None
"""


@pytest.fixture
def places(tmp_path):
    """The folders of a stack and of an answer."""
    write_input(tmp_path, example_stack().without_truth())
    (tmp_path / "answer").mkdir()
    return tmp_path / "stack", tmp_path / "answer"


def run(places, script, *options):
    command = [sys.executable, PEERS / script, *options, *places]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return read_answer(places[1])


def slice_of(index):
    return (example_stack().images[0, index] * 255).round() / 255


def test_openfocus_gives_an_image_alone(places, tmp_path):
    (tmp_path / "multi_focus_fusion.py").write_text(OPENFOCUS)
    depth, aif = run(places, "openfocus.py", "--repository", tmp_path, "--method", "dtcwt")
    assert depth is None and torch.allclose(aif, slice_of(1))


def test_stackmff_gives_an_index_and_its_pixels(places, tmp_path):
    (tmp_path / "network.py").write_text(STACKMFF)
    torch.save({"module.weight": torch.zeros(1)}, tmp_path / "model.pth")
    depth, aif = run(places, "stackmff.py", "--repository", tmp_path, "--version", "2")
    assert depth.unique().tolist() == [2.0] and torch.allclose(aif, slice_of(2))


def test_dfd_is_told_the_camera_and_the_range(places, tmp_path):
    (tmp_path / "src").mkdir()
    for name, text in DFD.items():
        (tmp_path / "src" / f"{name}.py").write_text(text)
    depth, aif = run(places, "dfd.py", "--repository", tmp_path)
    assert torch.allclose(depth, example_stack().near_m.expand_as(depth)) and torch.allclose(aif, slice_of(0))


def test_a_supervised_network_by_a_loader_of_the_users(places, tmp_path):
    (tmp_path / "loader.py").write_text(LOADER)
    options = ("--model", f"{tmp_path}/loader.py:load", "--checkpoint", tmp_path / "weights.pth")
    depth, aif = run(places, "supervised.py", *options)
    assert aif is None and depth.unique().tolist() == [float(example_stack().focus_distances_m[0, 0])]


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_a_monocular_model_with_random_weights(places):
    depth, aif = run(places, "monocular.py", "--random")
    assert depth.shape == (48, 64) and aif.shape == (3, 48, 64)


def test_every_list_of_peers_can_be_read(monkeypatch):
    for name in ("OPENFOCUS", "STACKMFF_V2", "DFD", "DFV", "AIFDEPTHNET", "DDFS", "FOSSA"):
        for suffix in ("", "_CHECKPOINT", "_LOADER"):
            monkeypatch.setenv(name + suffix, "somewhere")
    monkeypatch.setenv("PEER_PYTHON", "python")
    monkeypatch.setenv("MONOCULAR_MODEL", "model")
    found = contestants_of([str(path) for path in sorted(PEERS.glob("*.yaml"))], {})
    assert {one.name: one.depth_kind for one in found}["monocular"] == "inverse" and len(found) == 12
    for one in found:
        script = one.how.split()[1]
        assert (PEERS.parents[1] / script).is_file() and np.isfinite(one.timeout_s)
