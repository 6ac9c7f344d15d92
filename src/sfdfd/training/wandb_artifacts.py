"""Checkpoints from W&B: ``checkpoint=wandb:ENTITY/PROJECT/model-RUN:best``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sfdfd.errors import InputError, one_line

__all__ = ["PREFIX", "downloaded"]

PREFIX = "wandb:"


def downloaded(address: str) -> Path:
    """Return the checkpoint in a W&B artifact, downloaded to ``~/.cache/sfdfd`` (or SFDFD_CACHE) unless it is there.

    Args:
        address: ``wandb:[ENTITY/]PROJECT/NAME[:VERSION]``; VERSION is ``best`` if none is given.

    Raises:
        InputError: W&B did not deliver the artifact, or it does not hold exactly one checkpoint.
    """
    import wandb

    name = address.removeprefix(PREFIX)
    if name.count("/") not in (1, 2) or not all(name.split("/")):
        raise InputError(f"checkpoint={address}: expected wandb:ENTITY/PROJECT/NAME:VERSION")
    name += "" if ":" in name else ":best"
    cache = Path(os.environ.get("SFDFD_CACHE") or Path.home() / ".cache" / "sfdfd")
    try:
        artifact: Any = wandb.Api(timeout=30).artifact(name)
        folder = Path(artifact.download(root=str(cache / f"{artifact.id}")))
    except Exception as error:  # no key, no network, no such artifact: whatever W&B raises
        raise InputError(f"checkpoint={address}: W&B did not give it ({one_line(error)})") from None
    checkpoints = sorted(folder.rglob("*.ckpt"))
    if len(checkpoints) != 1:
        raise InputError(f"checkpoint={address}: expected one checkpoint (*.ckpt) in it, found {len(checkpoints)}")
    return checkpoints[0]
