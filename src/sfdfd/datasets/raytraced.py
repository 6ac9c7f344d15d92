"""Path-traced stacks as a data set: what ``prepare`` makes, read as other prepared stacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from sfdfd.datasets.datamodule import StacksDataModule
from sfdfd.datasets.folders import read_manifest
from sfdfd.datasets.raytraced_making import RaytracedMaker
from sfdfd.errors import InputError
from sfdfd.scenes.raytraced.camera_setups import CameraSetup
from sfdfd.scenes.raytraced.random_scenes import KINDS

__all__ = ["RaytracedDataModule"]


class RaytracedDataModule(StacksDataModule):
    """Path-traced stacks. ``camera``, ``focus_distances_m``, ``near_m``, ``far_m`` and ``slices`` say to ``prepare`` what to
    make; afterwards they override what the stacks say, as in :class:`StacksDataModule`.

    Args:
        root: where ``python -m sfdfd.prepare data=raytraced`` puts the set.
        height, width, samples, kinds, variant: see :class:`sfdfd.datasets.raytraced_making.RaytracedMaker`.
        train_length, val_length, test_length: scenes of each camera.
        cameras: several cameras in one set, each as :meth:`sfdfd.scenes.raytraced.camera_setups.CameraSetup.of` takes it;
            None for the one of ``camera``.
        others: :class:`StacksDataModule`.
    """

    def __init__(
        self,
        root: str,
        height: int = 240,
        width: int = 320,
        train_length: int = 24,
        val_length: int = 4,
        test_length: int = 12,
        cameras: Sequence[Mapping[str, Any] | str] | None = None,
        kinds: Sequence[str] | None = None,
        samples: int | None = None,
        variant: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(root, **common)
        self.size, self.cameras = (height, width), cameras
        self.lengths = {"train": train_length, "val": val_length, "test": test_length}
        kinds = KINDS if kinds is None else kinds
        self.tracing: dict[str, Any] = {"kinds": kinds, "samples": samples, "variant": variant}

    @cached_property
    def maker(self) -> RaytracedMaker:  # type: ignore[override] # of the class above it is None, here made when first asked
        keys = ("camera", "focus_distances_m", "near_m", "far_m")
        one = {key: self.overrides[key] for key in keys if self.overrides[key] is not None}
        height, width = self.size
        if self.cameras is None:
            setups = [CameraSetup.of(one, width, self.slices)]
        else:
            given = [key for key in keys if key in one and (key != "camera" or any(one[key].values()))]
            if given:
                raise InputError(f"expected data.cameras or data.{given[0]}, not both (data.cameras)")
            if not isinstance(self.cameras, Sequence) or isinstance(self.cameras, str) or not self.cameras:
                raise InputError(f"expected a list of cameras, got {self.cameras!r} (data.cameras)")
            setups = [
                CameraSetup.of(one, width, self.slices, f"data.cameras[{i}]") for i, one in enumerate(self.cameras)
            ]
        return RaytracedMaker(tuple(setups), height, width, self.lengths, self.seed, **self.tracing)

    def protocol(self) -> dict[str, Any]:
        made = (read_manifest(self.root) or {}).get("options")
        return {**super().protocol(), **({} if made is None else {"made_with": made})}
