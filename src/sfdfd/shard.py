"""Pack stacks into shards: ``python -m sfdfd.shard stacks=DIR output_dir=SHARDS``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.runs.command import command, plain

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig


RECORD = "packed.json"
"""In ``output_dir``: of each shard its bytes and a digest of what it was made from, and which splits were copied."""


def shard(config: DictConfig) -> None:
    """One tar file for every ``per_shard`` stack folders, in the order of their names. Shards of unchanged stacks are kept;
    those that no stack belongs to any more are removed once all others are written."""
    from pathlib import Path

    from sfdfd import shard as module  # as others find it: this file may be __main__
    from sfdfd.datasets.stack_folders import stack_folders
    from sfdfd.errors import InputError, checked_whole
    from sfdfd.io.files import write_json
    from sfdfd.runs.cluster import spreading

    settings = plain(config)
    number = checked_whole(settings["per_shard"], "per_shard", 1)
    if settings["stacks"] is None:
        raise InputError("give the folder of stack folders: stacks=DIR")
    root, output_dir = Path(str(settings["stacks"])).resolve(), Path(settings["output_dir"]).resolve()
    folders = stack_folders(root)
    output_dir.mkdir(parents=True, exist_ok=True)
    parts = [folders[i : i + number] for i in range(0, len(folders), number)]
    record = _read_record(output_dir / RECORD)
    paths = [output_dir / f"stacks-{index:06d}.tar" for index in range(len(parts))]
    jobs = [(path, part, record["shards"].get(path.name)) for path, part in zip(paths, parts, strict=True)]
    with spreading(settings["cluster"]) as spread:
        for index, result in spread(module.packed, jobs):
            if isinstance(result, Exception):
                raise result
            record["shards"][paths[index].name] = result
            write_json(output_dir / RECORD, record)
            print(f"{paths[index].name}: {len(parts[index])} stacks, {result['bytes'] / 1e6:.1f} MB", flush=True)
    for path in sorted(output_dir.glob("stacks-" + "[0-9]" * 6 + ".tar")):
        if path not in paths:
            path.unlink()
            record["shards"].pop(path.name, None)
            print(f"{path.name}: removed, its stacks are in other shards or no longer in {root}")
    record["splits"] = _copied_splits(root / "splits", output_dir / "splits", record["splits"])
    write_json(output_dir / RECORD, record)
    print(f"{len(folders)} stacks in {len(parts)} shards; data=shards data.root={output_dir}")


def packed(job: tuple[Path, list[Path], Any]) -> dict[str, Any]:
    """Write one shard, unless it was made from these very files and is still there; what the record says of it."""
    from sfdfd.datasets.shards import sources_digest, write_shard

    path, folders, before = job
    digest = sources_digest(folders)
    if path.is_file() and before == {"bytes": path.stat().st_size, "sources": digest}:
        return before
    return {"bytes": write_shard(path, folders), "sources": digest}


def _read_record(path: Path) -> dict[str, Any]:
    """What an earlier call wrote; an empty record where there is none or it is broken, so that all is packed anew."""
    import json

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"shards": dict(content["shards"]), "splits": [str(name) for name in content["splits"]]}
    except (OSError, ValueError, KeyError, TypeError):
        return {"shards": {}, "splits": []}


def _copied_splits(source: Path, target: Path, before: list[str]) -> list[str]:
    """Copy the splits; those that an earlier call copied and that are gone since go as well. Their names."""
    import shutil

    from sfdfd.io.files import atomic_write

    names = sorted(path.name for path in source.iterdir() if path.is_file()) if source.is_dir() else []
    if names:
        target.mkdir(exist_ok=True)
    for name in names:
        with atomic_write(target / name) as part:
            shutil.copyfile(source / name, part)
    for name in before:
        if name not in names:
            (target / name).unlink(missing_ok=True)
    return names


main = command("shard")(shard)

if __name__ == "__main__":
    main()
