"""Files that other programs read, read back."""

import numpy as np
import torch

from sfdfd.report.point_cloud import write_point_cloud


def test_point_clouds_read_back(tmp_path):
    depth_m, aif = torch.rand(40, 50) + 1, torch.rand(3, 40, 50)
    keep = torch.ones(40, 50, dtype=torch.bool)
    keep[0] = False
    count = write_point_cloud(tmp_path / "p.ply", depth_m, aif, 100.0, keep=keep, comment="metres")
    header, body = (tmp_path / "p.ply").read_bytes().split(b"end_header\n", 1)
    assert b"element vertex %d" % count in header and count == 39 * 50 and b"comment metres" in header
    points = np.frombuffer(body, dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])
    row, column = 7, 13
    point = points[(row - 1) * 50 + column]
    z = float(depth_m[row, column])
    np.testing.assert_allclose(point["xyz"], [(column - 24.5) * z / 100, (row - 19.5) * z / 100, z], rtol=1e-5)
    np.testing.assert_allclose(point["rgb"] / 255, aif[:, row, column].numpy(), atol=0.003)
    assert write_point_cloud(tmp_path / "q.ply", depth_m, aif, 100.0, largest=500) <= 500


def test_a_principal_point_moves_the_points(tmp_path):
    """A point on the axis, which lies in the middle of pixel (row 3, column 7), has x = y = 0."""
    write_point_cloud(
        tmp_path / "p.ply", torch.full((20, 30), 2.0), torch.rand(3, 20, 30), 50.0, principal_point_px=(7.5, 3.5)
    )
    body = (tmp_path / "p.ply").read_bytes().split(b"end_header\n", 1)[1]
    points = np.frombuffer(body, dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])["xyz"].reshape(20, 30, 3)
    np.testing.assert_allclose(points[3, 7], (0, 0, 2))
    np.testing.assert_allclose(points[13, 27], (20 * 2 / 50, 10 * 2 / 50, 2), rtol=1e-6)
