"""Pack stacks into shards: ``python -m sfdfd.shard stacks=DIR output_dir=SHARDS``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfdfd.runs.command import as_plain_dict, command

if TYPE_CHECKING:
    from omegaconf import DictConfig


def shard(config: DictConfig) -> None:
    """Pack a folder of stacks into tar files; shards of unchanged stacks are kept."""
    from functools import partial
    from pathlib import Path

    from sfdfd.datasets.shard_packing import pack_stacks
    from sfdfd.errors import InputError, checked_int
    from sfdfd.runs.cluster import spreading

    settings = as_plain_dict(config)
    per_shard = checked_int(settings["per_shard"], "per_shard", 1)
    if settings["stacks"] is None:
        raise InputError("give the folder of stack folders: stacks=DIR")
    root, output_dir = Path(str(settings["stacks"])).resolve(), Path(settings["output_dir"]).resolve()
    with spreading(settings["cluster"]) as spread:
        stacks, shards = pack_stacks(root, output_dir, per_shard, spread, partial(print, flush=True))
    print(f"{stacks} stacks in {shards} shards; data=shards data.root={output_dir}")


main = command("shard")(shard)

if __name__ == "__main__":
    main()
