"""One stack at work: a folder of its own, and the commands as processes of their own, which can be watched and stopped."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfdfd.errors import InputError
from sfdfd.report.progress_files import DEPTH_FILE, PROGRESS_FILE

__all__ = ["Job", "Progress"]

LAUNCH = (
    "import signal, sys, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "name = sys.argv.pop(1); runpy.run_module(name, run_name='__main__', alter_sys=True)"
)
"""A server in the background ignores Ctrl-C, and so would its children."""
POLL_S = 0.3
HIDDEN = {".hydra", "predict.log"}


@dataclass(frozen=True)
class Progress:
    """Where a prediction is.

    Attributes:
        share: of the refinement, in [0, 1]; None before and after it.
        said: the last line that the command printed.
        depth: a picture of the depth so far.
    """

    share: float | None
    said: str
    depth: Path | None


class Job:
    """A stack, from photographs to what was predicted of them.

    Args:
        root: the job's folder is made in it, and is removed by :meth:`close`.
        longest_s: after which a command is ended.
    """

    def __init__(self, root: Path, longest_s: float) -> None:
        self.folder = root / secrets.token_hex(16)
        self.photographs, self.prediction = self.folder / "photographs", self.folder / "prediction"
        self.photographs.mkdir(parents=True)
        self.longest_s = longest_s
        self.example = False
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False

    @property
    def stack(self) -> str:
        return "example" if self.example else "photographs"

    def check(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """What was recognised, and whether it will work: the content of ``diagnosis.json``.

        Raises:
            InputError: what ``diagnose`` said was wrong.
        """
        for _ in self._run("diagnose", [*_overrides(said), "output_dir=diagnosis"]):
            pass
        return _read(self.folder / "diagnosis" / "diagnosis.json")

    def predict(self, said: Mapping[str, Any]) -> Iterator[Progress]:
        """Predict; what there is to see is yielded about three times a second.

        Raises:
            InputError: what ``predict`` said was wrong.
        """
        for folder in (self.prediction, self.folder / "watch"):
            shutil.rmtree(folder, ignore_errors=True)
        for line in self._run("predict", [*_overrides(said), "watch=watch", "output_dir=prediction"]):
            seen, depth = _read(self.folder / "watch" / PROGRESS_FILE), self.folder / "watch" / DEPTH_FILE
            refining = bool(seen) and not (self.prediction / "prediction.json").is_file()
            if refining and self._stopping and self._process is not None:
                self._stopping = False
                self._process.send_signal(signal.SIGINT)
            yield Progress(seen.get("share") if refining else None, line, depth if depth.is_file() else None)

    def facts(self) -> dict[str, Any]:
        """The content of ``prediction.json``."""
        return _read(self.prediction / "prediction.json")

    def stop(self) -> None:
        """End the refinement as soon as there is one; the best until then is kept."""
        self._stopping = True

    def archive(self) -> Path:
        """Everything that was predicted, in one file."""
        path = self.folder / "sfdfd.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for file in self.files():
                archive.write(file, file.relative_to(self.prediction))
        return path

    def files(self) -> list[Path]:
        """What was predicted, file by file."""
        found = (file for file in sorted(self.prediction.rglob("*")) if file.is_file())
        return [file for file in found if not HIDDEN & set(file.relative_to(self.prediction).parts)]

    def close(self) -> None:
        """End what runs, remove what was written."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, command: str, arguments: Sequence[str]) -> Iterator[str]:
        """Run a command; its last line, now and then, until it ends."""
        if not self.folder.is_dir():
            raise InputError("these photographs are gone; give them again")
        said, wrong, self._stopping = self.folder / "said.txt", self.folder / "wrong.txt", False
        started = time.monotonic()
        line = [sys.executable, "-u", "-c", LAUNCH, f"sfdfd.{command}", f"stack={self.stack}", *arguments]
        with said.open("wb") as out, wrong.open("wb") as err:
            process = subprocess.Popen(line, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        self._process = process
        try:
            while process.poll() is None:
                if time.monotonic() - started > self.longest_s:
                    raise InputError(f"this took longer than {self.longest_s:g} s and was ended (longest_s)")
                yield _last_line(said)
                time.sleep(POLL_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            self._process = None
        if process.returncode != 0:
            reason = _last_line(wrong).removeprefix("sfdfd: ")
            raise InputError(reason if process.returncode in (2, 130) else f"{command} failed: {reason}")


def _overrides(said: Mapping[str, Any]) -> list[str]:
    """Numbers and lists of them as arguments of a command; nothing that a user wrote reaches it as text."""
    return [f"{key}={json.dumps(value)}" for key, value in said.items() if value is not None]


def _last_line(path: Path) -> str:
    try:
        lines = path.read_bytes()[-4000:].decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
