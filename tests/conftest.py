"""Shapes are checked in every test: jaxtyping's annotations become assertions before sfdfd is imported."""

from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401 - the hook finds it by name

hook = install_import_hook("sfdfd", "tests.typechecker.check")

import os  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

from sfdfd.optics import Camera  # noqa: E402

CAMERA = Camera(0.05, 8.0, 1.2e-5)
FOCUS_M = (1.0, 1.5, 2.5, 4.0, 6.0)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # small tensors: threads cost more than they bring


@pytest.fixture
def camera() -> Camera:
    return CAMERA


@pytest.fixture
def real_data() -> Path:
    """The folder of real images and stacks, which is not part of the project."""
    folder = os.environ.get("SFDFD_REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real data is not part of the project; set SFDFD_REAL_DATA to its folder")
    return Path(folder)
