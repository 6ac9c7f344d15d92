"""The page as a person uses it, in a real browser: from upload to download, on a desk and on a phone, with no network."""

import json
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from sfdfd.photographs.lookup import example_photographs
from tests.browser import chromium, sideways_overflow
from tests.commands import inside, one_line


@pytest.mark.parametrize(("arguments", "words"), [
    (["port=99999"], "port"), (["uploads.files=0"], "uploads.files"), (["folder=nowhere"], "folder"),
    (["open=perhaps"], "open"),
    (["uploads.pixels=3"], "pixels"),
])  # fmt: skip
def test_bad_input_is_one_line(tmp_path, arguments, words):
    done = inside("app", *arguments, cwd=tmp_path, expect=2)
    assert words in one_line(done.stderr) and not list(tmp_path.iterdir())


def test_without_gradio_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'sfdfd[app]'" in one_line(inside("app", "port=0", cwd=tmp_path, expect=2).stderr)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of a running app, and the folder of its temporary files; both are gone afterwards."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("app")
    command = [sys.executable, "-u", "-m", "sfdfd.app", "port=0", "open=false", f"folder='{folder}'"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        found = next(re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stdout if "http://" in line)
        yield found.group(), folder
        process.terminate()
        process.wait(60)
    assert not list(folder.iterdir())


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """The example as a camera would have written it."""
    folder = tmp_path_factory.mktemp("photographs")
    for image, focus in zip(example_photographs(96, 128).images, (1.0, 1.5, 2.5, 4.0, 6.0), strict=True):
        exif = Image.Exif()
        about = exif.get_ifd(0x8769)  # 50 mm, f/8, 333 pixels a centimetre
        about[0x920A], about[0x829D], about[0xA20E], about[0xA210] = 50.0, 8.0, 333.33, 3
        Image.fromarray(image).save(folder / f"写真 {focus * 100:g} cm!.jpg", quality=97, exif=exif)
    return folder


def waited(browser, selector, words, seconds=240):
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.by import By

    end, text = time.monotonic() + seconds, ""
    while time.monotonic() < end:
        try:
            text = browser.find_element(By.CSS_SELECTOR, selector).text
        except WebDriverException:
            text = ""
        if words in text:
            return text
        time.sleep(0.3)
    raise AssertionError(f"no {words!r} in {selector}: {text!r}")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_from_upload_to_download(served, photographs, tmp_path, width):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    address, _ = served
    browser = chromium(tmp_path / "profile", "--disable-gpu", downloads=tmp_path)
    try:
        browser.set_window_size(width, 900)
        browser.get(address)
        waited(browser, "#go", "Go")

        def press(selector):
            element = browser.find_element(By.CSS_SELECTOR, selector)
            browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()

        upload = browser.find_element(By.CSS_SELECTOR, "#files input[type=file]")
        upload.send_keys("\n".join(str(path) for path in sorted(photographs.iterdir())))
        found = waited(browser, "#recognised", "Will it work")
        assert "50 mm (EXIF)" in found and "写真 150 cm!.jpg 1.5 m" in found  # the names and units of the user's side
        press("#check input")
        press("#go")
        waited(browser, "#status", "Refining")
        end = time.monotonic() + 60
        while not browser.find_elements(By.CSS_SELECTOR, "#depth img"):  # depth so far, from the start on
            assert time.monotonic() < end and "Done" not in browser.find_element(By.CSS_SELECTOR, "#status").text
            time.sleep(0.1)
        press("#stop")
        waited(browser, "#status", "Done")
        assert "metres" in waited(browser, "#about", "Stopped by you") and "dB" in waited(
            browser, "#check_result", "photograph"
        )
        before = waited(browser, "#focused", "Focused at")
        picture = browser.find_element(By.CSS_SELECTOR, "#refocused img")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
        ActionChains(browser).move_to_element_with_offset(
            picture, 0, int(picture.size["height"] * 0.45)
        ).click().perform()
        end = time.monotonic() + 60
        while browser.find_element(By.CSS_SELECTOR, "#focused").text == before:
            assert time.monotonic() < end, "a click changes nothing"
            time.sleep(0.3)
        assert sideways_overflow(browser) <= 0
        press("#archive")
        end = time.monotonic() + 60
        while not list(tmp_path.glob("*.zip")):
            assert time.monotonic() < end, "nothing was downloaded"
            time.sleep(0.3)
        with zipfile.ZipFile(next(tmp_path.glob("*.zip"))) as archive:
            names = set(archive.namelist())
        assert {"depth.exr", "portrait.jpg", "scene.glb", "slice_index.png", "refocus.webp", "report.html"} <= names
        asked = set()
        for entry in browser.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.add(message["params"]["request"]["url"])
        assert asked and not [
            one for one in asked if not one.startswith((address, "data:", "blob:", "chrome:", "chrome-untrusted:"))
        ], asked
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    finally:
        browser.quit()


@pytest.mark.slow
def test_strokes_are_kept_with_the_job_and_applied_again(served, tmp_path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    address, folder = served
    browser = chromium(tmp_path / "profile", "--disable-gpu")

    def press(selector):
        element = browser.find_element(By.CSS_SELECTOR, selector)
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    try:
        browser.set_window_size(1280, 900)
        browser.get(address)
        waited(browser, "#go", "Go")
        press("#example")
        waited(browser, "#recognised", "example_1.0m")
        press("#go")
        waited(browser, "#status", "Refining")
        press("#stop")
        waited(browser, "#status", "Done")
        press("#retouch button")
        frame = browser.find_element(By.CSS_SELECTOR, "#editor iframe")
        browser.switch_to.frame(frame)
        waited(browser, ".status", "No strokes yet")
        canvas = browser.find_element(By.CSS_SELECTOR, "canvas")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        ActionChains(browser, duration=20).move_to_element(canvas).click_and_hold().move_by_offset(
            20, 10
        ).release().perform()
        waited(browser, ".status", "1 stroke")
        browser.switch_to.default_content()
        assert sideways_overflow(browser) <= 0
        press("#apply")
        waited(browser, "#status", "Refining")
        press("#stop")
        waited(browser, "#status", "Done")
        facts = json.loads(next(Path(folder).rglob("prediction/prediction.json")).read_text())
        assert facts["retouch"]["strokes"] == {"slice": 1} and 0 < facts["retouch"]["aif_share"] < 1
        browser.switch_to.frame(browser.find_element(By.CSS_SELECTOR, "#editor iframe"))
        waited(browser, ".status", "1 stroke")  # it goes on from there
        browser.switch_to.default_content()
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    finally:
        browser.quit()


@pytest.mark.slow
def test_the_example_replaces_photographs(served, photographs, tmp_path):
    from selenium.webdriver.common.by import By

    address, _ = served
    browser = chromium(tmp_path / "profile", "--disable-gpu")
    try:
        browser.get(address)
        waited(browser, "#go", "Go")
        upload = browser.find_element(By.CSS_SELECTOR, "#files input[type=file]")
        upload.send_keys("\n".join(str(path) for path in sorted(photographs.iterdir())))
        assert "50 mm (EXIF)" in waited(browser, "#recognised", "Will it work")
        browser.find_element(By.CSS_SELECTOR, "#example").click()
        assert "EXIF" not in waited(browser, "#recognised", "example_1.0m")
        time.sleep(2)  # what empties the field must not empty the page
        assert "example_1.0m" in waited(browser, "#recognised", "Will it work")
        assert not browser.find_element(By.CSS_SELECTOR, "#go").get_attribute("disabled")
    finally:
        browser.quit()


@pytest.mark.slow
def test_a_hostile_upload_is_one_line_on_the_page(served, photographs, tmp_path):
    from selenium.webdriver.common.by import By

    address, folder = served
    bad = tmp_path / "evil.jpg"
    bad.write_bytes(b"PK\x03\x04" + bytes(5000))
    browser = chromium(tmp_path / "profile", "--disable-gpu")
    try:
        browser.get(address)
        waited(browser, "#go", "Go")
        files = [*sorted(photographs.iterdir()), bad]
        browser.find_element(By.CSS_SELECTOR, "#files input[type=file]").send_keys("\n".join(map(str, files)))
        assert "evil.jpg: not a readable image" in waited(browser, "body", "evil.jpg: not")
        assert browser.find_element(By.CSS_SELECTOR, "#go").get_attribute("disabled")
        assert not [path for path in Path(folder).rglob("photographs/*") if path.name == "evil.jpg"]
    finally:
        browser.quit()
