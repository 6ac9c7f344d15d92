"""Shapes are checked in every test: jaxtyping's annotations become assertions before sfdfd is imported."""

from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401 - the hook finds it by name

hook = install_import_hook("sfdfd", "tests.typechecker.check")

import os  # noqa: E402
from pathlib import Path  # noqa: E402

import imageio.v3 as iio  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from sfdfd.datasets.synthetic import RGBDDataModule  # noqa: E402
from sfdfd.datasets.wrappers import RenderedStacks  # noqa: E402
from sfdfd.io.images import write_image  # noqa: E402
from sfdfd.networks import classical_network  # noqa: E402
from sfdfd.optics import Camera, DefocusRenderer  # noqa: E402
from sfdfd.scenes.procedural import ProceduralScenes  # noqa: E402
from sfdfd.scenes.synthesis import StackSynthesis  # noqa: E402

CAMERA = Camera(0.05, 8.0, 1.2e-5)
FOCUS_M = (1.0, 1.5, 2.5, 4.0, 6.0)


def procedural_stacks(number: int, synthesis: StackSynthesis, **options: int) -> RenderedStacks:
    """Procedural scenes, rendered."""
    return RenderedStacks(ProceduralScenes(number, synthesis.near_m, synthesis.far_m, **options), synthesis)


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


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run of six steps, in a folder with a space in its name, and what it printed."""
    from tests.commands import SMALL, inside

    folder = tmp_path_factory.mktemp("elsewhere")
    done = inside(
        "train", "experiment=procedural", "trainer.max_steps=6", "trainer.val_check_interval=3",
        "callbacks.pictures.every_n_epochs=1", "output_dir=a run", *SMALL, "pictures=1", cwd=folder,
    )  # fmt: skip
    return folder / "a run", done


@pytest.fixture(scope="session")
def rgbd_folder(tmp_path_factory):
    """Four RGB-D images of noise."""
    folder = tmp_path_factory.mktemp("rgbd data")
    rng = np.random.default_rng(0)
    for part in ("rgb", "depth"):
        (folder / part).mkdir()
    for index in range(4):
        iio.imwrite(folder / "rgb" / f"{index}.png", rng.integers(0, 255, (32, 40, 3), dtype=np.uint8))
        iio.imwrite(folder / "depth" / f"{index}.png", rng.integers(900, 5000, (32, 40), dtype=np.uint16))
    return folder


@pytest.fixture(scope="session")
def photographs_folder(tmp_path_factory):
    """Three slices of noise and a stack.yaml."""
    folder = tmp_path_factory.mktemp("captured")
    for index in range(3):
        write_image(folder / f"{index}.png", torch.rand(3, 30, 42, generator=torch.Generator().manual_seed(index)))
    (folder / "stack.yaml").write_text(
        "camera: {focal_length_m: 0.05, f_number: 8.0, pixel_pitch_m: 1.2e-5}\nfocus_distances_m: [1, 2, 4]\n"
        "near_m: 0.8\nfar_m: 5\n"
    )
    return folder


@pytest.fixture(scope="session")
def assets_folder(tmp_path_factory):
    """Assets: eight images of noise and a box."""
    trimesh = pytest.importorskip("trimesh")
    pytest.importorskip("embreex")
    folder = tmp_path_factory.mktemp("my assets")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for index in range(8):
        codes = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        iio.imwrite(folder / "pictures" / f"image{index}.png", codes)
    trimesh.creation.box((0.2, 0.4, 0.1)).export(folder / "box.glb")
    return folder


@pytest.fixture
def rgbd(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("rgb", "depth"):
        (tmp_path / part).mkdir()
    for index in range(12):
        iio.imwrite(tmp_path / "rgb" / f"{index:04d}.png", rng.integers(0, 255, (20, 26, 3), dtype=np.uint8))
        millimetres = rng.integers(900, 8000, (20, 26), dtype=np.uint16)
        millimetres[:3, :4] = 0
        iio.imwrite(tmp_path / "depth" / f"{index:04d}.png", millimetres)
    return tmp_path


def rgbd_module(root, **options):
    return RGBDDataModule(
        root=str(root),
        renderer=DefocusRenderer(sigma_scale=0.5),
        camera=CAMERA,
        focus_distances_m=FOCUS_M,
        near_m=0.5,
        far_m=10.0,
        **options,
    )


@pytest.fixture(scope="module")
def scene():
    synthesis = StackSynthesis(DefocusRenderer(sigma_scale=0.5, method="exact"), CAMERA, FOCUS_M, 0.5, 10.0)
    return procedural_stacks(4, synthesis, seed=0, height=96, width=112)[1]


def start_of(stack):
    return classical_network(
        stack.images, stack.focus_distances_m, near_m=stack.near_m, far_m=stack.far_m, slice_mask=stack.slice_mask
    )[:2]
