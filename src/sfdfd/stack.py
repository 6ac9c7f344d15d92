"""The dataclasses that cross rooms. Below this file plain tensors, above it these.

Shapes: B batch, S slice, H height, W width. Images are RGB floats in [0, 1], lengths are metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sfdfd.errors import InputError
from sfdfd.optics.camera import Camera

__all__ = ["FocalStack", "Prediction"]


@dataclass(frozen=True, eq=False)
class FocalStack:
    """A batch of focal stacks, with or without truth.

    Attributes:
        images: (B,S,3,H,W) the slices, RGB in [0, 1].
        focus_distances_m: (B,S) focus distance of each slice in metres, beyond the focal length; inf is allowed.
        camera: B cameras, of these pixels.
        near_m: (B,) smallest depth that can occur, in metres.
        far_m: (B,) largest depth that can occur, in metres, > near_m.
        slice_mask: (B,S) true where a slice is real, false where it only pads the batch.
        name: B names, for tables and pictures.
        depth_m: (B,H,W) true depth in metres, if known; never read in training unless a config key says so.
        aif: (B,3,H,W) true all-in-focus image, if known; the same.
        valid: (B,H,W) true where depth_m is known and in range.
        size_px: B (height, width) of the real images, which lie at the top left of padded ones; None: nothing is padded.
    """

    images: Float[Tensor, "b s 3 h w"]
    focus_distances_m: Float[Tensor, "b s"]
    camera: tuple[Camera, ...]
    near_m: Float[Tensor, "b"]
    far_m: Float[Tensor, "b"]
    slice_mask: Bool[Tensor, "b s"]
    name: tuple[str, ...]
    depth_m: Float[Tensor, "b h w"] | None = None
    aif: Float[Tensor, "b 3 h w"] | None = None
    valid: Bool[Tensor, "b h w"] | None = None
    size_px: tuple[tuple[int, int], ...] | None = None

    @classmethod
    def single(
        cls,
        images: Float[Tensor, "s 3 h w"],
        focus_distances_m: Sequence[float] | Tensor,
        camera: Camera,
        near_m: float,
        far_m: float,
        *,
        name: str = "",
        depth_m: Float[Tensor, "h w"] | None = None,
        aif: Float[Tensor, "3 h w"] | None = None,
        valid: Bool[Tensor, "h w"] | None = None,
    ) -> FocalStack:
        """A batch of one, checked.

        Raises:
            InputError: the number of distances is not the number of slices, a distance lies inside the focal length, or
                near and far are not 0 < near < far.
        """
        focus = torch.as_tensor(focus_distances_m, dtype=torch.float32)
        if focus.shape != images.shape[:1]:
            raise InputError(
                f"expected {images.shape[0]} focus distances, one per slice, got {focus.numel()} (focus_distances_m)"
            )
        if not 0 < near_m < far_m:
            raise InputError(f"expected 0 < near_m < far_m, got {near_m} and {far_m} (near_m, far_m)")
        camera.blur_radius_px(1.0, focus)  # refuses focus distances inside the focal length
        return cls(
            images=images[None],
            focus_distances_m=focus[None],
            camera=(camera,),
            near_m=torch.tensor([near_m], dtype=torch.float32),
            far_m=torch.tensor([far_m], dtype=torch.float32),
            slice_mask=torch.ones(1, len(focus), dtype=torch.bool),
            name=(name,),
            depth_m=None if depth_m is None else depth_m[None],
            aif=None if aif is None else aif[None],
            valid=None if valid is None else valid[None],
        )

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, index: int) -> FocalStack:
        """Sample ``index`` as a batch of one, without its padding slices and pixels."""
        keep = self.slice_mask[index]
        height, width = self.images.shape[-2:] if self.size_px is None else self.size_px[index]
        return FocalStack(
            images=self.images[index, ..., :height, :width][keep][None],
            focus_distances_m=self.focus_distances_m[index][keep][None],
            camera=(self.camera[index],),
            near_m=self.near_m[index : index + 1],
            far_m=self.far_m[index : index + 1],
            slice_mask=self.slice_mask[index][keep][None],
            name=(self.name[index],),
            **{
                key: None if getattr(self, key) is None else getattr(self, key)[index : index + 1, ..., :height, :width]
                for key in ("depth_m", "aif", "valid")
            },
        )

    @classmethod
    def collate(cls, stacks: Sequence[FocalStack]) -> FocalStack:
        """One batch of many; shorter stacks are padded with masked slices, smaller images at the bottom and the right
        (``size_px`` then says what is real; see :meth:`parts`).

        Raises:
            InputError: only some have truth.
        """
        if any(stack.size_px is not None for stack in stacks):
            stacks = [stack[i] for stack in stacks for i in range(len(stack))]
        sizes = [tuple(stack.images.shape[-2:]) for stack in stacks for _ in range(len(stack))]
        size_px = None
        if len(set(sizes)) > 1:
            largest = tuple(max(size[axis] for size in sizes) for axis in (0, 1))
            size_px, stacks = tuple(sizes), [stack._padded(*largest) for stack in stacks]
        longest = max(stack.images.shape[1] for stack in stacks)

        def padded(value: Tensor, how: str) -> Tensor:
            missing = longest - value.shape[1]
            if not missing:
                return value
            filler = value[:, -1:] if how == "repeat" else torch.zeros_like(value[:, -1:])
            return torch.cat([value, *[filler] * missing], dim=1)

        def joined(key: str) -> Tensor | None:
            values = [getattr(stack, key) for stack in stacks]
            if all(value is None for value in values):
                return None
            if any(value is None for value in values):
                raise InputError(f"a batch needs {key} for all of its samples or for none")
            return torch.cat(values)

        return cls(
            images=torch.cat([padded(stack.images, "zero") for stack in stacks]),
            focus_distances_m=torch.cat([padded(stack.focus_distances_m, "repeat") for stack in stacks]),
            camera=tuple(camera for stack in stacks for camera in stack.camera),
            near_m=torch.cat([stack.near_m for stack in stacks]),
            far_m=torch.cat([stack.far_m for stack in stacks]),
            slice_mask=torch.cat([padded(stack.slice_mask, "zero") for stack in stacks]),
            name=tuple(name for stack in stacks for name in stack.name),
            depth_m=joined("depth_m"),
            aif=joined("aif"),
            valid=joined("valid"),
            size_px=size_px,
        )

    def _padded(self, height: int, width: int) -> FocalStack:
        """Edges repeated down and to the right; depth there is not valid."""
        bottom, right = height - self.images.shape[-2], width - self.images.shape[-1]

        def extended(values: Tensor | None) -> Tensor | None:
            if values is None:
                return None
            flat = values.reshape(1, -1, *values.shape[-2:])
            return F.pad(flat, (0, right, 0, bottom), mode="replicate").reshape(*values.shape[:-2], height, width)

        valid = None if self.valid is None else F.pad(self.valid, (0, right, 0, bottom))
        truth = {"depth_m": extended(self.depth_m), "aif": extended(self.aif), "valid": valid}
        return replace(self, images=extended(self.images), **truth)

    def parts(self) -> list[tuple[list[int], FocalStack]]:
        """The batch as batches of one image size each, without padding: (indices into this batch, their stacks).

        What is computed part by part is what an unpadded batch would give.
        """
        if self.size_px is None:
            return [(list(range(len(self))), self)]
        groups: dict[tuple[int, int], list[int]] = {}
        for index, size in enumerate(self.size_px):
            groups.setdefault(size, []).append(index)
        found = []
        for (height, width), indices in groups.items():
            values = {
                key: None if (value := getattr(self, key)) is None else value[indices]
                for key in ("focus_distances_m", "near_m", "far_m", "slice_mask")
            }
            for key in ("images", "depth_m", "aif", "valid"):
                value = getattr(self, key)
                values[key] = None if value is None else value[indices][..., :height, :width]
            camera, name = (tuple(getattr(self, key)[i] for i in indices) for key in ("camera", "name"))
            found.append((indices, FocalStack(camera=camera, name=name, **values)))
        return found

    def cropped(self, top: int, bottom: int, left: int, right: int) -> FocalStack:
        """Rows top to bottom and columns left to right (the ends excluded) of every image and map, of an unpadded batch."""
        changes = {
            key: None if (value := getattr(self, key)) is None else value[..., top:bottom, left:right]
            for key in ("images", "depth_m", "aif", "valid")
        }
        return replace(self, **changes)

    def _mapped(self, function) -> FocalStack:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{key: function(value) for key, value in values.items() if isinstance(value, Tensor)})

    def to(self, *args, **kwargs) -> FocalStack:
        """The same batch with every tensor moved; takes a device (Lightning calls it)."""
        return self._mapped(lambda value: value.to(*args, **kwargs))

    def pin_memory(self) -> FocalStack:
        """The same batch in pinned memory (the DataLoader calls it)."""
        return self._mapped(lambda value: value.pin_memory())

    def with_slices(self, indices: Sequence[int]) -> FocalStack:
        """The same batch with these slices of each stack, in this order."""
        keep = torch.as_tensor(list(indices), device=self.images.device)
        return replace(
            self,
            images=self.images[:, keep],
            focus_distances_m=self.focus_distances_m[:, keep],
            slice_mask=self.slice_mask[:, keep],
        )

    def without_truth(self) -> FocalStack:
        """The same batch with no depth, AIF or validity mask: all that training may see."""
        return replace(self, depth_m=None, aif=None, valid=None)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a method says about a batch of stacks.

    Attributes:
        depth_m: (B,H,W) depth in metres, within the stack's [near_m, far_m].
        aif: (B,3,H,W) all-in-focus image, RGB in [0, 1].
        defocus_px: (B,S,H,W) signed blur radius in pixels under that depth; positive behind the focus distance.
        rendered: (B,S,3,H,W) the stack that this depth and AIF would have produced; None where it was not rendered.
        confidence: (B,H,W) in (0, 1], see :mod:`sfdfd.confidence`; None where nobody asked.
        depth_std_m: (B,H,W) standard deviation of the depth in metres; the same.
    """

    depth_m: Float[Tensor, "b h w"]
    aif: Float[Tensor, "b 3 h w"]
    defocus_px: Float[Tensor, "b s h w"]
    rendered: Float[Tensor, "b s 3 h w"] | None
    confidence: Float[Tensor, "b h w"] | None = None
    depth_std_m: Float[Tensor, "b h w"] | None = None

    def part(self, indices: Sequence[int], height: int, width: int) -> Prediction:
        """Some of the samples, cut to the top left ``height`` x ``width`` pixels."""
        values = vars(self).items()
        return Prediction(**{k: None if v is None else v[list(indices)][..., :height, :width] for k, v in values})

    @classmethod
    def joined(cls, parts: Sequence[tuple[Sequence[int], Prediction]], height: int, width: int) -> Prediction:
        """The reverse: one prediction of ``height`` x ``width`` pixels, edges repeated where a part has none."""
        order = [index for indices, _ in parts for index in indices]
        values: dict[str, Tensor | None] = {}
        for key in vars(parts[0][1]):
            pieces = [getattr(prediction, key) for _, prediction in parts]
            if any(piece is None for piece in pieces):
                values[key] = None
                continue
            padded = []
            for piece in pieces:
                flat = piece.reshape(1, -1, *piece.shape[-2:])
                edges = (0, width - piece.shape[-1], 0, height - piece.shape[-2])
                padded.append(F.pad(flat, edges, mode="replicate").reshape(*piece.shape[:-2], height, width))
            values[key] = torch.cat(padded)[torch.tensor(order).argsort()]
        return cls(**values)
