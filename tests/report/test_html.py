"""The report is one file that needs nothing else, and its viewer works in a real browser."""

import base64
import re

import numpy as np
import pytest
import torch

from sfdfd.networks.interface import NetworkOutput, render_prediction
from sfdfd.optics import DefocusRenderer
from sfdfd.report.html import Section, gallery, viewer, write_page
from sfdfd.scenes.synthesis import StackSynthesis
from tests.browser import chromium, sideways_overflow
from tests.conftest import CAMERA, FOCUS_M, procedural_stacks

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page on a scene whose left half is at 1.1 m and whose right half is at 4 m."""
    stack = procedural_stacks(
        1, StackSynthesis(RENDERER, CAMERA, FOCUS_M, 0.5, 10.0), seed=0, height=72, width=96
    )[0]  # fmt: skip
    depth_m = torch.full((1, 72, 96), 1.1)
    depth_m[..., 48:] = 4.0
    prediction = render_prediction(NetworkOutput(depth_m, stack.aif), RENDERER, stack)
    path = tmp_path_factory.mktemp("report") / "report.html"
    sections = [
        Section(title="Refocus", viewer=viewer(stack, prediction, RENDERER, focuses=9)),
        Section(title="Pictures", rows=gallery(stack, prediction)),
        Section(title="Facts", facts=[("name", "<script>alert(1)</script>")], text=['"quoted"']),
        Section(title="Table", table={"header": ["a", "b"], "rows": [[1, 2]]}),
    ]
    write_page(path, "a title", sections)
    return path


def test_the_page_is_self_contained_and_escaped(page):
    text = page.read_text()
    assert page.stat().st_size < 20e6
    addresses = re.findall(r'(?:src|href)="([^"]{1,40})', text)
    assert addresses and all(address.startswith("data:") for address in addresses)
    assert not re.findall(r"https?://|@import|url\((?!data:)", text)
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text


def test_the_viewers_frames_are_renderings_and_the_lookup_is_inverse_depth():
    stack = procedural_stacks(1, StackSynthesis(RENDERER, CAMERA, FOCUS_M, 0.5, 10.0), seed=0, height=40, width=64)[0]
    prediction = render_prediction(NetworkOutput(stack.depth_m, stack.aif), RENDERER, stack)
    found = viewer(stack, prediction, RENDERER, focuses=5)
    assert found["apertures"][0] == 0 and len(found["frames"][0]) == 1
    assert all(len(row) == 5 for row in found["frames"][1:])
    lookup = np.frombuffer(base64.b64decode(found["lookup"]), np.uint8).reshape(found["rows"], found["columns"])
    inverse = 1 / np.array(found["focus"])
    assert np.all(np.diff(inverse) < 0)  # near first
    back = inverse[0] + lookup / 255 * (inverse[-1] - inverse[0])
    truth = 1 / stack.depth_m[0].numpy()
    inside = (truth < inverse[0]) & (truth > inverse[-1])
    assert np.abs(back - truth)[inside].max() < 0.51 * (inverse[0] - inverse[-1]) / 255 + 1e-6


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = chromium(tmp_path_factory.mktemp("profile"), "--disable-gpu")
    yield browser
    browser.quit()


def click(browser, stage, x, y):
    """A real mouse click at a share of the element's size."""
    from selenium.webdriver import ActionChains

    size = stage.size
    ActionChains(browser).move_to_element_with_offset(
        stage, int((x - 0.5) * size["width"]), int((y - 0.5) * size["height"])
    ).click().perform()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_click_refocuses_and_the_console_stays_silent(browser, page, width):
    from selenium.webdriver.common.by import By

    browser.set_window_size(width, 900)
    browser.get(page.as_uri())
    box = browser.find_element(By.CSS_SELECTOR, ".viewer")
    stage, image = box.find_element(By.CSS_SELECTOR, ".stage"), box.find_element(By.CSS_SELECTOR, ".stage img")
    seen = {}
    for side, x in (("left", 0.2), ("right", 0.8)):
        click(browser, stage, x, 0.5)
        seen[side] = float(box.get_attribute("data-focus")), image.get_attribute("src")
    assert seen["left"][0] == pytest.approx(1.1, rel=0.05) and seen["right"][0] == pytest.approx(4.0, rel=0.05)
    assert seen["left"][1] != seen["right"][1]
    assert "4.00 m" in box.text
    aperture = box.find_element(By.CSS_SELECTOR, ".aperture")
    browser.execute_script("arguments[0].value = 0; arguments[0].dispatchEvent(new Event('input'))", aperture)
    assert box.get_attribute("data-aperture") == "0" and "all in focus" in box.text
    assert sideways_overflow(browser) <= 0  # nothing sticks out sideways, on a phone's width either
    broken = browser.execute_script(
        "return [...document.images].filter(i => i.complete && i.naturalWidth === 0 && i.loading !== 'lazy').length"
    )
    assert broken == 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
