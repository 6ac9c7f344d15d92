"""Settings of refinement: weights of the energy's terms, learning rates and the share of each stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from sfdfd.errors import InputError
from sfdfd.optics.render import Renderer

__all__ = ["RefinementSettings", "checked_settings", "settings_for"]


@dataclass(frozen=True)
class RefinementSettings:
    """Weights, learning rates and stages; the defaults suit renderers that model occlusion in linear light.

    p is the normalized inverse depth (0 at far, 1 at near), I the AIF. The formulas stand in the modules of the terms.

    Attributes:
        smoothness: weight of first differences of p, less the slopes (:mod:`sfdfd.refinement.depth_prior`).
        bending: weight of the differences of the slopes; 0 optimizes no slopes, so that p tends to be flat.
        offsets_px: distances between the pixels that are compared.
        initial_smoothness: factor on the smoothness of textureless regions at first; it falls to 1.
        initial_farness: weight of the mean p of textureless regions at first; it falls to 0. Of two explanations that render
            alike, the one in which a foreground ends at its silhouette wins.
        edge_sharpness: how fast an edge of the AIF releases the depth prior.
        ripple_px: difference in blur radius up to which depth is smoothed even across an edge of the AIF; 0 for none.
        charbonnier_eps: rounding of the absolute value of differences of p.
        outlier_level: residual (of a range of 1) beyond which a pixel counts less and less.
        expected_residual: first quartile of a slice's residuals up to which it counts in full; 0 weights all slices alike.
        aif_smoothness: weight of the AIF's total variation.
        start_trust: weight of the departure from the start, at 10 px of blur difference over the depth range.
        start_min_std: smallest standard deviation of p that a start is believed to have.
        hidden_reach_px: distance behind a silhouette within which the hidden surface is optimized too; 0 for none.
        lr_depth, lr_slopes, lr_aif: Adam's learning rates of p, of its slopes (per pyramid image) and of the AIF.
        pyramid_levels: number of images whose sum is p, each half the size of the one before.
        coarse_share: largest share of the time spent below full size.
        coarse_steps: most steps at each size below full size.
        coarse_min_blur_px: largest blur radius over the depth range that a smaller size must have to be used.
        draft_share: share of the full-size stage that uses the renderer's draft.
        draft_steps: most steps with the draft.
    """

    smoothness: float = 0.04
    bending: float = 0.64
    offsets_px: tuple[int, ...] = (1, 2, 4, 8, 16)
    initial_smoothness: float = 5.0
    initial_farness: float = 0.006
    edge_sharpness: float = 40.0
    ripple_px: float = 0.3
    charbonnier_eps: float = 1e-3
    outlier_level: float = 0.02
    expected_residual: float = 0.0013
    aif_smoothness: float = 0.007
    start_trust: float = 0.0023
    start_min_std: float = 0.06
    hidden_reach_px: int = 6
    lr_depth: float = 0.006
    lr_slopes: float = 0.0005
    lr_aif: float = 0.01
    pyramid_levels: int = 6
    coarse_share: float = 0.5
    coarse_steps: float = 30
    coarse_min_blur_px: float = 6.0
    draft_share: float = 0.3
    draft_steps: float = 10


WITHOUT_OCCLUSION = RefinementSettings(
    smoothness=0.038,
    bending=0.0,
    offsets_px=(1,),
    initial_smoothness=1.0,
    initial_farness=0.0,
    edge_sharpness=12.0,
    ripple_px=0.0,
    charbonnier_eps=5.5e-4,
    outlier_level=0.006,
    expected_residual=0.0,
    aif_smoothness=0.001,
    start_trust=0.0,
    hidden_reach_px=0,
    lr_depth=0.004,
    lr_aif=0.006,
    coarse_share=0.15,
    coarse_steps=math.inf,
    coarse_min_blur_px=0.0,
    draft_share=0.7,
    draft_steps=math.inf,
)
"""For renderers without occlusion. They cannot explain depth edges, so residuals there lose weight early."""


def settings_for(renderer: Renderer, changes: dict[str, Any]) -> RefinementSettings:
    """Return the settings that suit a renderer, with ``changes`` applied."""
    return replace(RefinementSettings() if renderer.models_occlusion else WITHOUT_OCCLUSION, **changes)


def checked_settings(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes of settings.

    Raises:
        InputError: there is no such setting.
    """
    unknown = set(changes) - {field.name for field in fields(RefinementSettings)}
    if unknown:
        raise InputError(f"refine: no such option: {', '.join(sorted(unknown))} (refine.{min(unknown)})")
    return dict(changes)
