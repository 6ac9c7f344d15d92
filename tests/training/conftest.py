"""Fixtures of the training tests."""

import pytest
import torch

from sfdfd.training.distillation_scenes import TeacherPrediction


@pytest.fixture
def prediction():
    generator = torch.Generator().manual_seed(3)
    inverse_depth_01 = torch.linspace(0.1, 0.7, 64)[None].expand(56, 64)
    return TeacherPrediction(inverse_depth_01, torch.rand(3, 56, 64, generator=generator), torch.ones(56, 64))
