"""Training on one's own photographs."""

import numpy as np

from sfdfd.datasets.recorded import common_rectangle


def test_photographs_are_cropped_to_what_all_slices_show():
    covered = np.ones((20, 30), bool)
    covered[:2] = covered[:, 27:] = False
    covered[19, :5] = False
    assert common_rectangle(covered) == (2, 19, 0, 27)
