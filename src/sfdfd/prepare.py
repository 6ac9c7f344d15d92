"""Prepare: ``python -m sfdfd.prepare data=NAME data.root=DIR [source=FILE_OR_FOLDER_OR_URL]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfdfd.io.run_record import run_record
from sfdfd.runs.command import command, instantiate

if TYPE_CHECKING:
    from omegaconf import DictConfig


def prepare(config: DictConfig) -> None:
    """Convert a published data set to a layout that training reads, or generate one; do nothing if it is there already."""
    import sys
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig
    from rich.console import Console
    from rich.progress import Progress

    from sfdfd.datasets.preparation import convert_source, existing_manifest, generate_stacks
    from sfdfd.datasets.sources import SOURCES
    from sfdfd.errors import InputError
    from sfdfd.runs.cluster import spreading

    name = HydraConfig.get().runtime.choices["data"]
    source = SOURCES.get(name)
    generator = None if source is not None else instantiate(config.data).stack_generator
    if source is None and generator is None:
        known = ", ".join((*SOURCES, "raytraced", "truebench", "assets"))
        raise InputError(f"data={name}: nothing to prepare; data sets that can be: {known}")
    if generator is not None and config.source is not None:
        raise InputError(f"source={config.source}: data={name} is made, not converted; leave source out")
    root = Path(config.data.root)
    manifest = existing_manifest(root, name, generator)
    if manifest is not None:
        print(f"{root} is already there ({manifest.get('samples')} samples)")
        return
    with Progress(console=Console(stderr=True, force_terminal=sys.stderr.isatty())) as progress:

        def report_of(title: str):
            task = progress.add_task(title, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        record = {"data": name, "run": run_record()}
        if generator is not None:
            with spreading(config.cluster) as spread:
                manifest = generate_stacks(generator, root, record, report_of("making"), spread)
        else:
            assert source is not None
            location = None if config.source is None else str(config.source)
            manifest = convert_source(source, root, location, record, report_of)
    print(f"{manifest['samples']} samples of {manifest['title']} in {root}\nlicence: {manifest['licence']}")
    if source is not None:
        print(f"cite: {source.citation}")
    if reference := manifest.get("reference"):
        same = "equal within noise" if reference["matches"] else f"different: {', '.join(reference['different'])}"
        print(f"compared with the reference in the package ({reference['compared']} scenes): {same}")


main = command("prepare")(prepare)

if __name__ == "__main__":
    main()
