"""The image prior is total variation."""

import numpy as np
import pytest
import torch

from sfdfd.refinement.image_prior import ImagePrior
from sfdfd.refinement.lens import Lens
from sfdfd.refinement.variables import Stage, Variables


def test_it_is_the_total_variation_of_the_aif_and_of_the_hidden_colours():
    """Against NumPy."""
    aif, hidden = torch.rand(2, 2, 3, 7, 9, generator=torch.Generator().manual_seed(0)).unbind(0)
    variables = Variables(aif[:, 0], aif, Lens((), 2, aif), None, hidden)
    for is_hidden, image in ((False, aif), (True, hidden)):
        values = image.double().numpy()
        expected = sum(np.sqrt(np.diff(values, axis=axis) ** 2 + 1e-5).mean((1, 2, 3)) for axis in (2, 3))
        found = ImagePrior(0.5, is_hidden)(variables, Stage())
        np.testing.assert_allclose(found.numpy(), 0.5 * expected, rtol=1e-5)
    assert ImagePrior(0.5, hidden=True)(variables._replace(hidden_colours=None), Stage()) == pytest.approx(0.0)
