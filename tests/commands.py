"""The commands as a user runs them: their own main functions in this process, or real processes."""

import contextlib
import importlib
import io
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

SMALL = [
    "data.train_length=4", "data.val_length=1", "data.test_length=2", "data.height=32", "data.width=40",
    "data.batch_size=2", "module.augmentation.crop=32", "network.width=8", "network.depth=2", "pictures=0",
    "callbacks.pictures.samples=1", "threads=1",
]  # fmt: skip
QUIET = {"WANDB_SILENT": "true", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}  # tests run side by side


def inside(command, *arguments, cwd, expect=0):
    """``python -m sfdfd.COMMAND`` through its main function: what it printed, after its exit code was checked."""
    done = ended(command, *arguments, cwd=cwd)
    assert done.code == expect, f"exit {done.code}\n{done.stdout}\n{done.stderr}"
    return done


def ended(command, *arguments, cwd):
    """The same with whatever exit code it ended: ``code``."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [f"sfdfd.{command}", *map(str, arguments)])
        for key, value in QUIET.items():
            patch.setenv(key, value)
        try:
            importlib.import_module(f"sfdfd.{command}").main()
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            for handler in list(logging.getLogger().handlers):  # Hydra's log file
                if isinstance(handler, logging.FileHandler):
                    logging.getLogger().removeHandler(handler)
                    handler.close()
    return SimpleNamespace(code=code, stdout=out.getvalue(), stderr=err.getvalue())


def process(command, *arguments, cwd, expect=0, env=None):
    """The same as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", f"sfdfd.{command}", *map(str, arguments)], cwd=cwd, capture_output=True, check=False,
        env={key: value for key, value in {**os.environ, **QUIET, **(env or {})}.items() if value is not None},
    )  # fmt: skip
    out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    assert done.returncode == expect, f"exit {done.returncode}\n{out}\n{err}"
    return SimpleNamespace(stdout=out, stderr=err)


def one_line(stderr):
    """The one line that bad input ends with."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("sfdfd: "), stderr
    return lines[0]
