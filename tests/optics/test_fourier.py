"""Channels in pairs as complex images, against NumPy's real transforms."""

import numpy as np
import pytest
import torch

from sfdfd.optics.fourier import mirrored, paired, unpaired


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_come_out_of_pairs_as_they_went_in(channels):
    images = torch.randn(2, channels, 5, 6)
    assert paired(images).shape == (2, (channels + 1) // 2, 5, 6)
    assert torch.equal(unpaired(paired(images), channels), images)


@pytest.mark.parametrize("shape", [(6, 8), (7, 9), (6, 9), (1, 1), (2, 2)])
def test_a_pair_is_blurred_as_its_channels_are(shape):
    g = np.random.default_rng(0)
    rows, columns = (np.minimum(np.arange(n), n - np.arange(n)) for n in shape)
    kernel = np.exp(-0.3 * rows[:, None] ** 2 - 0.2 * columns**2)
    half = np.fft.rfft2(kernel).real
    images = g.normal(size=(3, *shape))
    expected = np.fft.irfft2(np.fft.rfft2(images) * half, s=shape)
    whole = mirrored(torch.from_numpy(half), shape[1])
    np.testing.assert_allclose(whole, np.fft.fft2(kernel).real, atol=1e-12)
    found = torch.fft.ifft2(torch.fft.fft2(paired(torch.from_numpy(images))) * whole)
    np.testing.assert_allclose(unpaired(found, 3), expected, atol=1e-12)
