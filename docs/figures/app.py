"""Pictures of the page of ``python -m sfdfd.app``, at the width of a desk and of a phone: ``python docs/figures/app.py``.

Takes the example (procedural), with the left-out check, waits until it is done, and writes ``docs/assets/app_desktop.webp``
and ``docs/assets/app_phone.webp``. Needs Chromium and its driver.
"""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ASSETS = Path(__file__).resolve().parents[1] / "assets"
sys.path.insert(0, str(ASSETS.parents[1]))

from tests.browser import chromium  # noqa: E402
from tests.test_app import waited  # noqa: E402


def shown(browser) -> Image.Image:
    """The whole page, however long."""
    size = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
    found = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    return Image.open(io.BytesIO(base64.b64decode(found["data"])))


def pictures(address: str, profile: Path) -> None:
    from selenium.webdriver.common.by import By

    for name, width in (("desktop", 1280), ("phone", 390)):
        browser = chromium(profile / name, "--disable-gpu", "--hide-scrollbars", f"--window-size={width},900")
        try:
            browser.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
            )
            browser.get(address)
            waited(browser, "#go", "Go")
            browser.find_element(By.CSS_SELECTOR, "#example").click()
            waited(browser, "#recognised", "Will it work")
            browser.find_element(By.CSS_SELECTOR, "#check input").click()
            browser.find_element(By.CSS_SELECTOR, "#go").click()
            waited(browser, "#status", "Done", 600)
            waited(browser, "#focused", "Focused at")
            for picture in browser.find_elements(
                By.CSS_SELECTOR, "#results img"
            ):  # they are loaded when they come in sight
                browser.execute_script("arguments[0].scrollIntoView()", picture)
                time.sleep(0.5)
            shown(browser).save(ASSETS / f"app_{name}.webp", quality=80, method=6)
        finally:
            browser.quit()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-u", "-m", "sfdfd.app", "port=0", "open=false", f"folder='{folder}'"]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
            lines = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stdout or ())
            address = next(found.group() for found in lines if found)
            try:
                pictures(address, Path(folder) / "profiles")
            finally:
                process.terminate()
                process.wait(60)


if __name__ == "__main__":
    main()
