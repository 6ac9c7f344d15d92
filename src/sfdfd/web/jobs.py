"""Run the commands on one stack, in its own folder and in processes that can be watched and stopped."""

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
from sfdfd.io.files import write_json
from sfdfd.io.retouch_file import RETOUCH_FILE, Retouch
from sfdfd.report.progress_files import DEPTH_FILE, PROGRESS_FILE

__all__ = ["Job", "Progress"]

LAUNCH = (
    "import signal, sys, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "name = sys.argv.pop(1); runpy.run_module(name, run_name='__main__', alter_sys=True)"
)
"""Restores Ctrl-C, which a server in the background ignores and its children would ignore, too."""
POLL_S = 0.3
HIDDEN = {".hydra", "predict.log"}


@dataclass(frozen=True)
class Progress:
    """The progress of a prediction.

    Attributes:
        share: of the refinement, in [0, 1]; None before and after it.
        last_line: that the command printed.
        depth: a picture of the current depth.
    """

    share: float | None
    last_line: str
    depth: Path | None


class Job:
    """A stack, from photographs to their prediction.

    Args:
        root: the job creates its folder in it; :meth:`close` removes it.
        longest_s: longest time of a command in seconds.

    Attributes:
        settings: of the last prediction.
    """

    def __init__(self, root: Path, longest_s: float) -> None:
        self.folder = root / secrets.token_hex(16)
        self.photographs, self.prediction = self.folder / "photographs", self.folder / "prediction"
        self.photographs.mkdir(parents=True)
        self.longest_s = longest_s
        self.example = False
        self.settings: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False

    @property
    def stack(self) -> str:
        return "example" if self.example else "photographs"

    def diagnose(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Run ``diagnose``; return the content of ``diagnosis.json``.

        Raises:
            InputError: the error of the command.
        """
        for _ in self._run("diagnose", [*_overrides(settings), "output_dir=diagnosis"]):
            pass
        return _read(self.folder / "diagnosis" / "diagnosis.json")

    def predict(self, settings: Mapping[str, Any]) -> Iterator[Progress]:
        """Run ``predict``, with the strokes of :meth:`retouch`; yield its progress about three times a second.

        Raises:
            InputError: the error of the command.
        """
        for folder in (self.prediction, self.folder / "watch"):
            shutil.rmtree(folder, ignore_errors=True)
        self.settings, is_stopped = dict(settings), False
        arguments = [*_overrides(settings), "watch=watch", "output_dir=prediction"]
        if self.is_retouched:
            arguments.append(f"retouch={RETOUCH_FILE}")
        for line in self._run("predict", arguments):
            progress, depth = _read(self.folder / "watch" / PROGRESS_FILE), self.folder / "watch" / DEPTH_FILE
            refining = bool(progress) and not (self.prediction / "prediction.json").is_file()
            if refining and self._stopping and not is_stopped and self._process is not None:
                is_stopped = True  # a second interrupt would end the writing of the result
                self._process.send_signal(signal.SIGINT)
            yield Progress(progress.get("share") if refining else None, line, depth if depth.is_file() else None)

    @property
    def is_retouched(self) -> bool:
        """Whether the job has strokes."""
        return (self.folder / RETOUCH_FILE).is_file()

    def retouch(self, text: str | None) -> None:
        """Keep the strokes of a page for this and later predictions; None forgets them.

        Raises:
            InputError: the text is not the content of a ``retouch.json``.
        """
        if text is None:
            (self.folder / RETOUCH_FILE).unlink(missing_ok=True)
            return
        self._check_folder()
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            raise InputError("retouch: expected the strokes of this page; reload it and paint again") from None
        write_json(self.folder / RETOUCH_FILE, Retouch.parse(content, "retouch").as_dict())  # as it was understood

    def facts(self) -> dict[str, Any]:
        """Return the content of ``prediction.json``."""
        return _read(self.prediction / "prediction.json")

    def stop(self) -> None:
        """End the refinement as soon as it has started, and keep its best result."""
        self._stopping = True

    def archive(self) -> Path:
        """Write all files of the prediction into a zip file; return its path."""
        path = self.folder / "sfdfd.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for file in self.files():
                archive.write(file, file.relative_to(self.prediction))
        return path

    def files(self) -> list[Path]:
        """Return the files of the prediction."""
        files = (file for file in sorted(self.prediction.rglob("*")) if file.is_file())
        return [file for file in files if not HIDDEN & set(file.relative_to(self.prediction).parts)]

    def close(self) -> None:
        """End the running command and remove the folder."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check_folder(self) -> None:
        if not self.folder.is_dir():
            raise InputError("these photographs are no longer on the server; upload them again")

    def _run(self, command: str, arguments: Sequence[str]) -> Iterator[str]:
        """Run a command; until it ends, yield its last line again and again."""
        self._check_folder()
        output, errors, self._stopping = self.folder / "output.txt", self.folder / "errors.txt", False
        started = time.monotonic()
        arguments = [sys.executable, "-u", "-c", LAUNCH, f"sfdfd.{command}", f"stack={self.stack}", *arguments]
        with output.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(arguments, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        self._process = process
        try:
            while process.poll() is None:
                if time.monotonic() - started > self.longest_s:
                    raise InputError(f"this took longer than {self.longest_s:g} s and was ended (longest_s)")
                yield _last_line(output)
                time.sleep(POLL_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            self._process = None
        if process.returncode != 0:
            reason = _last_line(errors).removeprefix("sfdfd: ")
            raise InputError(reason if process.returncode in (2, 130) else f"{command} failed: {reason}")


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    """Return numbers, lists of them and our own file names as arguments of a command; no text of a user reaches it."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items() if value is not None]


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
