"""Prepare: ``python -m sfdfd.prepare data=NAME data.root=DIR [source=FILE_OR_FOLDER_OR_URL]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfdfd.io.run_record import run_record
from sfdfd.runs.command import command, instantiate

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig


def prepare(config: DictConfig) -> None:
    """Bring a data set of the field into one of our two layouts, or make one; does nothing where it is already there."""
    import sys
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig
    from rich.console import Console
    from rich.progress import Progress

    from sfdfd.datasets.folders import agreed, check_vacant, finish, read_manifest
    from sfdfd.datasets.sources import SOURCES
    from sfdfd.errors import InputError
    from sfdfd.runs.cluster import spreading

    name = HydraConfig.get().runtime.choices["data"]
    source = SOURCES.get(name)
    maker = None if source is not None else instantiate(config.data).maker
    if source is None and maker is None:
        raise InputError(f"data={name}: nothing to prepare; data sets that can be: {', '.join(SOURCES)}, raytraced")
    if maker is not None and config.source is not None:
        raise InputError(f"source={config.source}: data={name} is made, not converted; leave source out")
    root = Path(config.data.root)
    finish(root)
    manifest = read_manifest(root)
    if manifest is not None:
        if manifest.get("data") != name:
            raise InputError(f"{root} holds {manifest.get('data')!r}; give another data.root=DIR")
        if maker is not None:
            agreed(maker.options(), manifest.get("options"), root)
        print(f"{root} is already there ({manifest.get('samples')} samples)")
        return
    check_vacant(root)
    with Progress(console=Console(stderr=True, force_terminal=sys.stderr.isatty())) as progress:

        def reporter(title: str):
            task = progress.add_task(title, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        record = {"data": name, "run": run_record()}
        if maker is not None:
            record |= {"title": maker.title, "licence": maker.licence, "layout": "stacks"}
            with spreading(config.cluster) as spread:
                samples, title = maker.write(root.resolve(), record, reporter("tracing"), spread), maker.title
        else:
            assert source is not None
            samples, title = _convert(source, root, config.source, record, reporter), source.title
    print(f"{samples} samples of {title} in {root}\nlicence: {record['licence']}")
    if source is not None:
        print(f"cite: {source.citation}")


def _convert(source, root: Path, given: str | None, record: dict, reporter) -> int:
    """Fetch what is converted, convert it; the number of samples."""
    from sfdfd.datasets.folders import aside

    paths = _files(source, root, given, reporter)
    record |= {
        "title": source.title, "licence": source.licence, "citation": source.citation, "home": source.home,
        "layout": source.layout, "source": [path.name for path in paths],
    }  # fmt: skip
    with aside(root, record) as part:
        record["samples"] = source.convert(paths, part, reporter("converting"))
    return record["samples"]


def _files(source, root: Path, given: str | None, reporter) -> list[Path]:
    """What to convert: what was given, or what lies beside the root or can be downloaded there."""
    from pathlib import Path

    from sfdfd.errors import InputError
    from sfdfd.io.downloads import RemoteFile, download

    if given is not None and "://" in str(given):
        file = RemoteFile(str(given).rstrip("/").rsplit("/", 1)[-1].split("?")[0] or "download", str(given))
        target = root.parent / file.name
        if not target.is_file():
            download(file, target, reporter(f"downloading {file.name}"), source.home)
        return [target]
    if given is not None:
        path = Path(str(given))
        if not path.exists():
            raise InputError(f"source={path}: no such file or folder")
        return [path]
    paths = []
    for file in source.files:
        target = root.parent / file.name
        if not target.is_file():
            download(file, target, reporter(f"downloading {file.name}"), source.home)
        paths.append(target)
    return paths


main = command("prepare")(prepare)

if __name__ == "__main__":
    main()
