"""Path-traced stacks as a data set: ``prepare`` generates them; they are read as prepared stacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sfdfd.datasets.datamodule import StacksDataModule
from sfdfd.datasets.folders import read_manifest
from sfdfd.datasets.raytraced_generator import RaytracedGenerator
from sfdfd.errors import InputError
from sfdfd.scenes.raytraced.camera_setups import CameraSetup
from sfdfd.scenes.raytraced.random_scenes import KINDS

__all__ = ["RaytracedDataModule"]

CAMERA_OPTIONS = ("camera", "focus_distances_m", "near_m", "far_m", "side")


class RaytracedDataModule(StacksDataModule):
    """Path-traced stacks. ``camera``, ``focus_distances_m``, ``near_m``, ``far_m``, ``side`` and ``slices`` tell ``prepare``
    what to generate; when stacks are read, they override the ``stack.yaml`` files, as in :class:`StacksDataModule`.

    Args:
        root: where ``python -m sfdfd.prepare data=raytraced`` puts the data set.
        height, width, samples, kinds, variant: see :class:`sfdfd.datasets.raytraced_generator.RaytracedGenerator`.
        train_length, val_length, test_length: scenes per camera.
        cameras: several cameras in one data set, each as for
            :meth:`sfdfd.scenes.raytraced.camera_setups.CameraSetup.of`; None for the one of ``camera``.
        common: :class:`StacksDataModule`.
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
        self.kinds, self.samples, self.variant = KINDS if kinds is None else kinds, samples, variant

    @property
    def stack_generator(self) -> RaytracedGenerator:
        return RaytracedGenerator(
            self._camera_setups(), *self.size, self.lengths, self.seed, self.kinds, self.samples, self.variant
        )

    def _camera_setups(self) -> tuple[CameraSetup, ...]:
        width = self.size[1]
        single = {key: self.overrides[key] for key in CAMERA_OPTIONS if self.overrides[key] is not None}
        if self.cameras is None:
            return (CameraSetup.of(single, width, self.slices),)
        conflicts = [key for key, value in single.items() if key != "camera" or any(value.values())]
        if conflicts:
            raise InputError(f"expected data.cameras or data.{conflicts[0]}, not both (data.cameras)")
        if not isinstance(self.cameras, Sequence) or isinstance(self.cameras, str) or not self.cameras:
            raise InputError(f"expected a list of cameras, got {self.cameras!r} (data.cameras)")
        return tuple(
            CameraSetup.of(camera, width, self.slices, f"data.cameras[{i}]") for i, camera in enumerate(self.cameras)
        )

    def protocol(self) -> dict[str, Any]:
        options = (read_manifest(self.root) or {}).get("options")
        return {**super().protocol(), **({} if options is None else {"made_with": options})}
