"""Procedural scenes: deterministic, metric, varied."""

import numpy as np
import torch
from torch.utils.data import DataLoader

from sfdfd.optics import DefocusRenderer
from sfdfd.scenes.procedural import make_scene
from sfdfd.scenes.synthesis import StackSynthesis
from sfdfd.stack import FocalStack
from tests.conftest import CAMERA, FOCUS_M, procedural_stacks


def synthesis(**options):
    return StackSynthesis(RENDERER, CAMERA, FOCUS_M, 0.5, 10.0, **options)


RENDERER = DefocusRenderer(sigma_scale=0.5)


def test_scenes_are_independent_of_workers_and_differ():
    scenes = procedural_stacks(3, synthesis(), seed=5, height=24, width=32)
    loaders = [DataLoader(scenes, collate_fn=FocalStack.collate, num_workers=n) for n in (0, 2)]
    for one, other in zip(*loaders, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.depth_m, other.depth_m)
    assert not torch.equal(scenes[0].aif, scenes[1].aif)
    again = procedural_stacks(2, synthesis(), seed=5, first_index=1, height=24, width=32)
    assert torch.equal(again[0].images, scenes[1].images)
    assert not torch.equal(procedural_stacks(1, synthesis(), seed=6, height=24, width=32)[0].aif, scenes[0].aif)


def test_scenes_have_metric_depth_occlusion_and_texture():
    spans, edges, contrast = [], [], []
    for index in range(12):
        aif, depth = make_scene(0, index, 48, 64, 0.5, 10.0)
        assert aif.shape == (48, 64, 3) and aif.min() >= 0 and aif.max() <= 1
        assert depth.min() >= 0.5 and depth.max() <= 10.0 and np.isfinite(depth).all()
        spans.append(depth.max() / depth.min())
        edges.append((np.abs(np.diff(depth, axis=1)) > 0.1 * depth[:, 1:]).mean())
        contrast.append(np.abs(np.diff(aif.mean(2), axis=1)).mean())
    assert np.median(spans) > 1.8 and np.mean(edges) > 0.01 and np.median(contrast) > 0.01
