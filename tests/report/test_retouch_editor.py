"""The editor of the report page in a real browser: mouse, touch and keys, at the width of a desk and of a phone."""

import base64
import io
import json
import time

import numpy as np
import pytest
import torch
from PIL import Image

from sfdfd.inference.retouch import stroke_weight
from sfdfd.io.retouch_file import Retouch
from sfdfd.report.html import Section, write_page
from sfdfd.report.predicted_stack import RetouchSource
from sfdfd.report.retouch_editor import read_editor_page, retouch_editor
from tests.browser import chromium, sideways_overflow
from tests.conftest import CAMERA

NAMES = ("a.jpg", "b's <i>.jpg", "c.jpg")
SIZE = (180, 240)
COLOURS = ((200, 40, 40), (40, 180, 60), (40, 60, 200))
"""Of the slices; the AIF is grey."""


def editor(strokes=(), unit="m"):
    depth_m = torch.full(SIZE, 1.0)
    depth_m[:, 120:] = 4.0
    slices = [torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, *SIZE).clone() for colour in COLOURS]
    retouch = Retouch.parse({"size": list(SIZE), "slices": list(NAMES), "unit": unit, "strokes": list(strokes)})
    source = RetouchSource(torch.full((3, *SIZE), 0.5), depth_m, slices, retouch)
    return retouch_editor(source, CAMERA, None if unit == "m" else (1.0, 4.0))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("editor") / "report.html"
    write_page(path, "a title", [Section(title="Retouch", retouch=editor())])
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads")
    browser = chromium(tmp_path_factory.mktemp("profile"), "--disable-gpu", downloads=folder)
    browser.downloads = folder
    yield browser
    browser.quit()


class Painter:
    """Hands on the editor of an open page."""

    def __init__(self, browser, page, width):
        from selenium.webdriver.common.by import By

        self.browser, self.css = browser, By.CSS_SELECTOR
        browser.set_window_size(width, 900)
        browser.get(page.as_uri())
        self.box = browser.find_element(self.css, ".retouch")
        end = time.monotonic() + 20
        while not self.box.get_attribute("data-ready"):
            assert time.monotonic() < end, "the editor does not start"
            time.sleep(0.05)
        self.canvas = self.find("canvas")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", self.canvas)

    def find(self, name):
        return self.box.find_element(self.css, name)

    def press(self, name):
        self.browser.execute_script("arguments[0].click()", self.find(name))

    def put(self, name, value):
        self.browser.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))", self.find(name), value
        )

    def drag(self, *points):
        """A stroke with the mouse through points in shares of the picture."""
        from selenium.webdriver import ActionChains

        actions, size = ActionChains(self.browser, duration=20), self.canvas.size
        for index, (x, y) in enumerate(points):
            offset = int((x - 0.5) * size["width"]), int((y - 0.5) * size["height"])
            actions.move_to_element_with_offset(self.canvas, *offset)
            if index == 0:
                actions.click_and_hold()
        actions.release().perform()

    def touch(self, *points):
        """A stroke with a finger."""
        script = "const a = arguments[0].getBoundingClientRect(); return [a.left, a.top, a.width, a.height]"
        area = self.browser.execute_script(script, self.canvas)
        for kind, at in (
            ("touchStart", points[:1]),
            *(("touchMove", [point]) for point in points[1:]),
            ("touchEnd", []),
        ):
            where = [{"x": area[0] + x * area[2], "y": area[1] + y * area[3]} for x, y in at]
            self.browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": where})

    def keys(self, key, shift=False):
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        actions = ActionChains(self.browser).key_down(Keys.CONTROL)
        actions = actions.key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT) if shift else actions.send_keys(key)
        actions.key_up(Keys.CONTROL).perform()

    def strokes(self):
        """What the page would save, as Python reads it."""
        return Retouch.parse(json.loads(self.browser.execute_script("return arguments[0].retouch()", self.box)))

    def pixels(self):
        """(H,W,3) of the canvas."""
        uri = self.browser.execute_script("return arguments[0].toDataURL('image/png')", self.canvas)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")).astype(float)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_painted_slice_is_what_python_paints(browser, page, width):
    painter = Painter(browser, page, width)
    before = painter.pixels()
    painter.put(".slice", 1)
    painter.put(".brush", 8)
    painter.drag((0.2, 0.3), (0.5, 0.5), (0.6, 0.8))
    (stroke,) = painter.strokes().strokes
    assert stroke.operation == "slice" and stroke.slice == 1 and stroke.feather_px > 0
    assert stroke.radius_px == pytest.approx(0.08 * 240, rel=0.01)
    assert stroke.points[0] == pytest.approx((48, 54), abs=1.5) and stroke.points[-1] == pytest.approx(
        (144, 144), abs=1.5
    )
    (rows, columns), weight = stroke_weight(stroke, SIZE)
    whole = np.zeros(SIZE)
    whole[rows, columns] = weight
    expected = before + whole[..., None] * (np.array(COLOURS[1]) - before)
    wrong = np.abs(painter.pixels() - expected).max(-1)
    assert wrong[whole == 1].max() < 4 and wrong[whole == 0].max() < 4 and wrong.max() < 50 and wrong.mean() < 2
    assert sideways_overflow(browser) <= 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_strokes_are_undone_and_done_again_by_buttons_and_keys(browser, page):
    painter = Painter(browser, page, 1280)
    before = painter.pixels()
    painter.drag((0.3, 0.3), (0.4, 0.3))
    painter.drag((0.3, 0.6))
    two = painter.pixels()
    assert len(painter.strokes().strokes) == 2 and not np.array_equal(before, two)
    painter.keys("z")
    assert len(painter.strokes().strokes) == 1
    painter.press(".undo")
    assert painter.strokes().strokes == () and np.array_equal(painter.pixels(), before)
    assert painter.find(".undo").get_attribute("disabled") and "No strokes" in painter.box.text
    painter.keys("z")  # nothing is left to undo
    painter.press(".redo")
    painter.keys("z", shift=True)
    assert np.array_equal(painter.pixels(), two) and "2 strokes" in painter.box.text
    painter.press(".clear")
    painter.keys("z")
    assert len(painter.strokes().strokes) == 2  # clearing can be undone, too
    painter.keys("z")
    painter.drag((0.8, 0.8), (0.9, 0.8))  # a new stroke ends what could be done again
    assert painter.find(".redo").get_attribute("disabled") and len(painter.strokes().strokes) == 2


def test_a_finger_paints_and_a_second_one_does_not(browser, page):
    painter = Painter(browser, page, 390)
    painter.touch((0.3, 0.3), (0.5, 0.4), (0.6, 0.6))
    (stroke,) = painter.strokes().strokes
    assert stroke.points[-1] == pytest.approx((144, 108), abs=2) and len(stroke.points) >= 2
    painter.touch((0.2, 0.8))
    assert len(painter.strokes().strokes) == 2
    fingers = {"type": "touchStart", "touchPoints": [{"x": 100, "y": 400}, {"x": 200, "y": 450}]}
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", fingers)
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert len(painter.strokes().strokes) == 2


def test_the_depth_brushes_and_the_background(browser, page):
    painter = Painter(browser, page, 1280)
    painter.press(".tool[value=distance]")
    assert painter.find(".show").get_attribute("value") == "depth"
    painter.press(".pick")
    painter.drag((0.9, 0.5))
    assert float(painter.find(".depth").get_attribute("value")) == pytest.approx(4.0, rel=0.01)
    painter.drag((0.1, 0.2), (0.2, 0.2))
    painter.press(".tool[value=plane]")
    painter.put(".strength", 50)
    painter.press(".fill")
    painter.drag((0.1, 0.5), (0.3, 0.5), (0.3, 0.8), (0.1, 0.8))
    painter.press(".tool[value=background]")
    grey = painter.pixels()
    painter.drag((0.3, 0.9))
    distance, plane, background = painter.strokes().strokes
    assert (distance.operation, distance.depth, distance.feather_px) == ("distance", pytest.approx(4.0, rel=0.01), 0)
    assert plane.operation == "plane" and plane.fill and plane.strength == 0.5
    assert background.depth == pytest.approx(1.0, rel=0.01) and background.slice is None and background.aperture == 1
    painter.put(".from", 2)
    painter.press(".apply")
    assert len(painter.strokes().strokes) == 3 and painter.strokes().strokes[2].slice == 2  # in place of the first
    assert np.abs(painter.pixels()[90, 200] - COLOURS[2]).max() < 6 and np.allclose(
        painter.pixels()[90, 60], grey[90, 60]
    )
    painter.put(".beyond", "")
    painter.press(".apply")
    assert "Give a depth" in painter.box.text and len(painter.strokes().strokes) == 3


def test_strokes_are_saved_and_loaded_and_belong_to_their_picture(browser, page, tmp_path):
    painter = Painter(browser, page, 1280)
    painter.put(".slice", 2)
    painter.drag((0.3, 0.3), (0.4, 0.3))
    painted, pixels = painter.strokes(), painter.pixels()
    painter.press(".save")
    end = time.monotonic() + 20
    while not (browser.downloads / "retouch.json").is_file():
        assert time.monotonic() < end, "nothing was saved"
        time.sleep(0.1)
    saved = Retouch.read(browser.downloads / "retouch.json")
    assert saved == painted and saved.slices == NAMES
    painter = Painter(browser, page, 1280)
    painter.find(".load").send_keys(str(browser.downloads / "retouch.json"))
    end = time.monotonic() + 20
    while painter.box.get_attribute("data-strokes") != "1":
        assert time.monotonic() < end, "nothing was loaded"
        time.sleep(0.1)
    assert painter.strokes() == painted and np.array_equal(painter.pixels(), pixels)
    (tmp_path / "other.json").write_text(json.dumps({**saved.as_dict(), "slices": ["x", "y", "z"]}))
    painter.find(".load").send_keys(str(tmp_path / "other.json"))
    end = time.monotonic() + 20
    while "no strokes for this picture" not in painter.box.text:
        assert time.monotonic() < end, "the file of another picture was taken"
        time.sleep(0.1)
    assert painter.strokes() == painted


def test_the_editor_starts_with_the_strokes_that_were_applied(browser, tmp_path):
    stroke = {"operation": "slice", "slice": 0, "points": [[120, 90]], "radius_px": 30}
    write_page(tmp_path / "report.html", "t", [Section(title="Retouch", retouch=editor([stroke], "relative"))])
    (tmp_path / "alone.html").write_text(read_editor_page(tmp_path / "report.html"))
    painter = Painter(browser, tmp_path / "alone.html", 390)
    assert painter.strokes().unit == "relative" and np.abs(painter.pixels()[90, 120] - COLOURS[0]).max() < 6
    painter.press(".undo")
    assert len(painter.strokes().strokes) == 1  # they are the first state
    painter.press(".clear")
    assert np.abs(painter.pixels()[90, 120] - 128).max() < 4


def test_a_report_without_an_editor_has_no_page(tmp_path):
    write_page(tmp_path / "report.html", "t", [Section(title="x")])
    assert read_editor_page(tmp_path / "report.html") is None and read_editor_page(tmp_path / "none.html") is None
    assert "mountRetouch" not in (tmp_path / "report.html").read_text()
