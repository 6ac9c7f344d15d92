"""Prepare: ``python -m sfdfd.prepare data=nyu data.root=DIR [source=FILE]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfdfd.runs import command

if TYPE_CHECKING:
    from omegaconf import DictConfig


def prepare(config: DictConfig) -> None:
    """Bring NYUv2 into the layout that ``data=rgbd`` reads; does nothing where it is already there."""
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig
    from rich.console import Console
    from rich.progress import Progress

    from sfdfd.data.nyu import NYU_FILE, NYU_URL, convert_nyu, download
    from sfdfd.errors import InputError

    name = HydraConfig.get().runtime.choices["data"]
    if name != "nyu":
        raise InputError(f"data={name}: nothing to prepare; only data=nyu can be brought so far")
    root = Path(config.data.root)
    if (root / "manifest.json").is_file():
        print(f"{root} is already there")
        return
    occupied = [part for part in ("rgb", "depth") if (root / part).exists()]
    if occupied:
        raise InputError(f"{root / occupied[0]} exists, but was not made by this command; give another data.root=DIR")
    with Progress(console=Console(stderr=True)) as progress:

        def reporter(title: str):
            task = progress.add_task(title, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        source = Path(config.source) if config.source else root.with_name(NYU_FILE)
        if config.source is None and not source.is_file():
            source.parent.mkdir(parents=True, exist_ok=True)
            download(NYU_URL, source, reporter("downloading"))
        frames = convert_nyu(source, root, reporter("converting"))
    print(f"{frames} frames in {root}")


main = command("prepare")(prepare)

if __name__ == "__main__":
    main()
