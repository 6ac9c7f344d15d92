"""Mobile Depth: slices and calibrations in folders and archives."""

import shutil
import zipfile

import imageio.v3 as iio
import numpy as np
import pytest
import yaml

from sfdfd.datasets.folders import MANIFEST
from sfdfd.errors import InputError
from tests.datasets.sources.helpers import converted, file_contents, image, message_id


@pytest.fixture
def mobile_depth(tmp_path):
    folder = tmp_path / "mobile"
    aligned = folder / "Aligned" / "Figure6" / "metals"
    aligned.mkdir(parents=True)
    for index in range(3):
        iio.imwrite(aligned / f"a{index:02d}.jpg", image(48, 64))
        iio.imwrite(aligned / f"{index:02d}.jpg", image(48, 64))
    calibration = folder / "calibration" / "metal"
    calibration.mkdir(parents=True)
    (calibration / "calibrated.txt").write_text("10.0 1.1\n20.0 1.1\n40000.0 1.1\n1200.5\n")
    return folder


def test_mobile_depth(mobile_depth, tmp_path):
    root = converted("mobile_depth", [mobile_depth], tmp_path / "out")
    described = yaml.safe_load((root / "metals" / "stack.yaml").read_text())
    assert described["focus_distances_m"] == [float("inf"), pytest.approx(0.508), pytest.approx(0.254)]
    assert len(described["files"]) == 3 and described["camera"]["f_number"] is None and "truth" not in described
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for file in mobile_depth.rglob("*.*"):
            archive.write(file, file.relative_to(mobile_depth))
    again = converted("mobile_depth", [tmp_path / "two.zip"], tmp_path / "again")
    assert (again / "metals" / "stack.yaml").read_text() == (root / "metals" / "stack.yaml").read_text()
    assert sorted(path.name for path in again.iterdir()) == [MANIFEST, "metals", "splits"]


def test_mobile_depth_slices_are_sorted_by_number(tmp_path):
    aligned, calibration = tmp_path / "set" / "Aligned" / "bags", tmp_path / "set" / "calibration" / "bags"
    aligned.mkdir(parents=True)
    calibration.mkdir(parents=True)
    for index in range(1, 12):
        iio.imwrite(aligned / f"a{index}.jpg", np.full((24, 32, 3), 20 * index, np.uint8))
    (calibration / "calibrated.txt").write_text("".join(f"{10 * i} 1.1\n" for i in range(1, 12)) + "1200.5\n")
    root = converted("mobile_depth", [tmp_path / "set"], tmp_path / "out")
    described = yaml.safe_load((root / "bags" / "stack.yaml").read_text())
    assert described["focus_distances_m"] == pytest.approx([0.254 * i for i in range(1, 12)])
    shown = [iio.imread(root / "bags" / file).mean() / 20 for file in described["files"]]
    assert shown == pytest.approx(range(1, 12), abs=0.1)


def test_mobile_depth_in_two_archives_is_found(mobile_depth, tmp_path):
    expected = converted("mobile_depth", [mobile_depth], tmp_path / "expected")
    (tmp_path / "given").mkdir()
    for name, part in (("data2.zip", "Aligned"), ("data3.tar.gz", "calibration")):
        shutil.make_archive(
            str(tmp_path / "given" / name.split(".")[0]), "zip" if name.endswith("zip") else "gztar", mobile_depth, part
        )
    for index, given in enumerate(([tmp_path / "given"], sorted((tmp_path / "given").iterdir()))):
        root = converted("mobile_depth", given, tmp_path / "given" / f"out{index}")  # beside the archives
        assert file_contents(root) == file_contents(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xfe\x00", "not readable as text"),
        (b"10 1.1\n20 1.1\nnear 1.1\n1200\n", "expected numbers"),
        (b"10 1.1\n20 1.1\nnan 1.1\n1200\n", "other than 0, got nan"),
        (b"10 1.1\n0 1.1\n30 1.1\n1200\n", "other than 0, got 0"),
        (b"10 1.1\n1200\n", "got 2 lines"),
        (b"10 1.1\n20 1.1\n1200\n", "2 distances for 3 slices"),
        (b"1e9 1.1\n1e9 1.1\ninf 1.1\n1200\n", "expected a focus distance below"),
    ],
    ids=message_id,
)
def test_malformed_mobile_depth_calibrations_are_reported(mobile_depth, tmp_path, text, message):
    (mobile_depth / "calibration" / "metal" / "calibrated.txt").write_bytes(text)
    with pytest.raises(InputError, match=rf"calibrated\.txt.*{message}"):
        converted("mobile_depth", [mobile_depth], tmp_path / "out")


def test_duplicate_mobile_depth_scenes_are_reported(mobile_depth, tmp_path):
    shutil.copytree(mobile_depth / "Aligned" / "Figure6", mobile_depth / "Aligned" / "Figure7")
    with pytest.raises(InputError, match=r"two folders of metals: .*Figure6.*Figure7"):
        converted("mobile_depth", [mobile_depth], tmp_path / "out")
