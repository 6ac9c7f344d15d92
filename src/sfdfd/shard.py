"""Pack stacks into shards: ``python -m sfdfd.shard stacks=DIR output_dir=SHARDS``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.runs.command import command, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


def shard(config: DictConfig) -> None:
    """One tar file for every ``per_shard`` stack folders, in the order of their names; what is there already is kept."""
    import shutil
    from pathlib import Path

    from sfdfd import shard as module  # as others find it: this file may be __main__
    from sfdfd.data.stacks import stack_folders
    from sfdfd.errors import InputError, checked_whole
    from sfdfd.runs.cluster import spreading

    settings = plain(config)
    number = checked_whole(settings["per_shard"], "per_shard", 1)
    if settings["stacks"] is None:
        raise InputError("give the folder of stack folders: stacks=DIR")
    root, output_dir = Path(str(settings["stacks"])).resolve(), Path(settings["output_dir"]).resolve()
    folders = stack_folders(root)
    output_dir.mkdir(parents=True, exist_ok=True)
    parts = [folders[i : i + number] for i in range(0, len(folders), number)]
    jobs = [(output_dir / f"stacks-{index:06d}.tar", part) for index, part in enumerate(parts)]
    with spreading(settings["cluster"]) as spread:
        for index, result in spread(module.packed, jobs):
            if isinstance(result, Exception):
                raise result
            print(f"{jobs[index][0].name}: {len(jobs[index][1])} stacks, {result / 1e6:.1f} MB", flush=True)
    if (root / "splits").is_dir():
        shutil.copytree(root / "splits", output_dir / "splits", dirs_exist_ok=True)
    print(f"{len(folders)} stacks in {len(parts)} shards; data=shards data.root={output_dir}")


def packed(job: tuple[Any, Any]) -> int:
    """One shard, unless it holds these stacks already; its bytes."""
    from sfdfd.data.shards import Shard, write_shard

    path, folders = job
    if path.is_file() and list(Shard.of(path).stacks) == [folder.name for folder in folders]:
        return path.stat().st_size
    return write_shard(path, folders)


main = command("shard")(shard)

if __name__ == "__main__":
    main()
