"""Channels in pairs as complex images, against NumPy's real transforms."""

import numpy as np
import pytest
import torch

from sfdfd.optics.fourier import channels_from_complex, complex_from_channels, full_spectrum


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_packing_channels_is_invertible(channels):
    images = torch.randn(2, channels, 5, 6)
    assert complex_from_channels(images).shape == (2, (channels + 1) // 2, 5, 6)
    assert torch.equal(channels_from_complex(complex_from_channels(images), channels), images)


@pytest.mark.parametrize("shape", [(6, 8), (7, 9), (6, 9), (1, 1), (2, 2)])
def test_packed_channels_are_blurred_as_single_ones(shape):
    g = np.random.default_rng(0)
    rows, columns = (np.minimum(np.arange(n), n - np.arange(n)) for n in shape)
    kernel = np.exp(-0.3 * rows[:, None] ** 2 - 0.2 * columns**2)
    half = np.fft.rfft2(kernel).real
    images = g.normal(size=(3, *shape))
    expected = np.fft.irfft2(np.fft.rfft2(images) * half, s=shape)
    whole = full_spectrum(torch.from_numpy(half), shape[1])
    np.testing.assert_allclose(whole, np.fft.fft2(kernel).real, atol=1e-12)
    found = torch.fft.ifft2(torch.fft.fft2(complex_from_channels(torch.from_numpy(images))) * whole)
    np.testing.assert_allclose(channels_from_complex(found, 3), expected, atol=1e-12)
