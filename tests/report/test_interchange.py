"""Depth maps and meshes for other programs, read back by those programs' own libraries, and shown in a browser."""

import base64
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from sfdfd.errors import InputError
from sfdfd.report.interchange import write_depth_exr, write_mesh
from tests.browser import chromium

trimesh = pytest.importorskip("trimesh")


def two_planes(height=30, width=40):
    """Left half at 1 m, red; right half at 2 m, green."""
    depth_m, aif = torch.ones(height, width), torch.zeros(3, height, width)
    depth_m[:, width // 2 :] = 2.0
    aif[0, :, : width // 2], aif[1, :, width // 2 :] = 1.0, 1.0
    return depth_m, aif


def test_exr_holds_the_very_floats(tmp_path):
    exr = pytest.importorskip("OpenEXR")
    depth = torch.rand(13, 17) * 100 + 1e-3
    write_depth_exr(tmp_path / "depth.exr", depth, "metres")
    with exr.File(str(tmp_path / "depth.exr")) as file:
        assert list(file.channels()) == ["Z"] and file.header()["comments"] == "metres"
        np.testing.assert_array_equal(file.channels()["Z"].pixels, depth.numpy())


def test_a_mesh_is_metric_textured_and_cut_at_jumps(tmp_path):
    depth_m, aif = two_planes()
    counts = write_mesh(tmp_path / "scene.glb", depth_m, aif, 50.0)
    scene = trimesh.load_scene(tmp_path / "scene.glb")
    (mesh,) = scene.geometry.values()
    assert counts == {"vertices": len(mesh.vertices), "triangles": len(mesh.faces)}
    assert len(mesh.faces) == 2 * 29 * (39 - 1)  # one column of cells spans the jump
    corners = -mesh.vertices[mesh.faces][..., 2]
    assert set(np.round(corners.max(1) / corners.min(1), 6)) == {1.0}
    first = mesh.vertices[np.lexsort((mesh.vertices[:, 0], -mesh.vertices[:, 1]))][0]
    right = np.array([(20 - 19.5) * 2 / 50, 14.5 * 2 / 50, -2])  # the far half's topmost: up is +y, away is -z
    np.testing.assert_allclose(first, right, rtol=1e-5)
    picture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB")).astype(float)
    columns = (mesh.visual.uv[:, 0] * 40).astype(int)
    rows = ((1 - mesh.visual.uv[:, 1]) * 30).astype(int)
    red = picture[rows, columns, 0] > picture[rows, columns, 1]
    assert (red == (mesh.vertices[:, 2] > -1.5)).all()
    assert b"KHR_materials_unlit" in (tmp_path / "scene.glb").read_bytes()


def test_a_principal_point_moves_the_mesh_and_the_camera_still_sees_all_of_it(tmp_path):
    depth_m, aif = torch.full((30, 40), 2.0), torch.rand(3, 30, 40)
    write_mesh(tmp_path / "scene.glb", depth_m, aif, 50.0, principal_point_px=(10.0, 20.0))
    scene = trimesh.load_scene(tmp_path / "scene.glb")
    (mesh,) = scene.geometry.values()
    low, high = mesh.bounds
    np.testing.assert_allclose(low[:2], [-9.5 * 2 / 50, -9.5 * 2 / 50], rtol=1e-5)
    np.testing.assert_allclose(high[:2], [29.5 * 2 / 50, 19.5 * 2 / 50], rtol=1e-5)
    seen = np.tan(np.radians(np.asarray(scene.camera.fov) / 2)) * 2
    np.testing.assert_allclose(seen, [30 * 2 / 50, 20 * 2 / 50], rtol=1e-5)


def test_slopes_stay_whole_and_masked_pixels_are_left_out(tmp_path):
    """A floor seen at 80 degrees stays whole."""
    rows = torch.arange(40.0)
    depth_m = (1 / (1 - rows / 80 * np.tan(np.radians(80)) / 5.67)).expand(30, 40).contiguous()
    keep = torch.ones(30, 40, dtype=torch.bool)
    whole = write_mesh(tmp_path / "whole.glb", depth_m, torch.rand(3, 30, 40), 80.0, keep=keep)
    assert whole == {"vertices": 1200, "triangles": 2 * 29 * 39}
    keep[:, :10] = False
    part = write_mesh(tmp_path / "part.glb", depth_m, torch.rand(3, 30, 40), 80.0, keep=keep)
    assert part == {"vertices": 900, "triangles": 2 * 29 * 29}
    assert write_mesh(tmp_path / "few.glb", depth_m, torch.rand(3, 30, 40), 80.0, largest=100)["vertices"] <= 100


def test_the_mesh_opens_in_a_viewer(tmp_path):
    """three.js' own loader of glTF, as trimesh carries it; seen from where the photographs were taken."""
    depth_m, aif = two_planes(60, 80)
    write_mesh(tmp_path / "scene.glb", depth_m, aif, 100.0)
    templates = Path(trimesh.__file__).parent / "resources" / "templates" / "viewer.zip"
    page = zipfile.ZipFile(templates).read("viewer.html.template").decode()
    data = base64.b64encode((tmp_path / "scene.glb").read_bytes()).decode()
    (tmp_path / "viewer.html").write_text(page.replace("$B64GLTF", data))
    browser = chromium(tmp_path / "profile", "--enable-unsafe-swiftshader")
    try:
        from selenium.webdriver.support.ui import WebDriverWait

        browser.set_window_size(800, 700)
        browser.get((tmp_path / "viewer.html").as_uri())
        drawn = "return typeof renderer !== 'undefined' && renderer.info.render.triangles"
        WebDriverWait(browser, 30).until(lambda one: one.execute_script(drawn))
        assert browser.execute_script(drawn) == 2 * 59 * 78
        pixels = browser.execute_script(
            "render(); const gl = renderer.getContext(), w = gl.drawingBufferWidth, h = gl.drawingBufferHeight;"
            "const at = x => { const p = new Uint8Array(4);"
            " gl.readPixels(x * w | 0, h / 2 | 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, p); return [...p]; };"
            "return [at(0.3), at(0.7)];"
        )
        (left, right) = pixels
        assert left[0] > 150 > 100 > left[1] and right[1] > 150 > 100 > right[0], pixels
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    finally:
        browser.quit()


@pytest.mark.parametrize(("name", "module", "write"), [
    ("exr", "OpenEXR", lambda path: write_depth_exr(path, torch.ones(2, 2))),
    ("glb", "trimesh", lambda path: write_mesh(path, torch.ones(2, 2), torch.ones(3, 2, 2), 1.0)),
])  # fmt: skip
def test_without_the_library_one_line_says_how_to_get_it(tmp_path, monkeypatch, name, module, write):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"outputs=\[{name}\].*pip install 'sfdfd\[photo\]'"):
        write(tmp_path / "x")
    assert not list(tmp_path.iterdir())
