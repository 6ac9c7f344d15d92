"""Truebench as a data set: ``prepare`` generates it; it is read as prepared stacks."""

from __future__ import annotations

from typing import Any

from sfdfd.datasets.datamodule import StacksDataModule
from sfdfd.datasets.folders import read_manifest
from sfdfd.datasets.truebench_generator import EDITION, HEIGHT, SCENES, WIDTH, TruebenchGenerator

__all__ = ["TruebenchDataModule"]


class TruebenchDataModule(StacksDataModule):
    """The scenes of an edition of truebench.

    Args:
        root: where ``python -m sfdfd.prepare data=truebench`` puts them.
        edition, beacon: see :func:`sfdfd.datasets.truebench_generator.seed_words`.
        scenes: per camera class.
        height, width, samples, variant: see :class:`sfdfd.datasets.truebench_generator.TruebenchGenerator`.
        common: :class:`StacksDataModule`.
    """

    def __init__(
        self,
        root: str,
        edition: int | str = EDITION,
        beacon: str | None = None,
        scenes: int = SCENES,
        height: int = HEIGHT,
        width: int = WIDTH,
        samples: int | None = None,
        variant: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(root, **common)
        self._generator = TruebenchGenerator(edition, beacon, scenes, height, width, samples, variant)

    @property
    def stack_generator(self) -> TruebenchGenerator:
        return self._generator

    def protocol(self) -> dict[str, Any]:
        manifest = read_manifest(self.root) or {}
        made = {key: manifest[key] for key in ("options", "reference") if manifest.get(key) is not None}
        return {**super().protocol(), **made}
