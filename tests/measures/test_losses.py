"""Loss terms against NumPy twins and closed forms."""

import math

import kornia
import numpy as np
import pytest
import torch
from scipy.ndimage import correlate, gaussian_filter

from sfdfd.errors import InputError
from sfdfd.measures.losses import (
    SelfSupervisedLoss,
    aif_blur,
    coarse_aif,
    depth_smoothness,
    photometric_error,
    reconstruction,
    sharpness,
)
from sfdfd.stack import FocalStack, Prediction
from tests.conftest import CAMERA, FOCUS_M


def numpy_ssim(a, b):
    def blur(x):
        return gaussian_filter(x, 1.5, truncate=5 / 1.5, mode="mirror")

    mu_a, mu_b = blur(a), blur(b)
    va, vb, cov = blur(a * a) - mu_a**2, blur(b * b) - mu_b**2, blur(a * b) - mu_a * mu_b
    c1, c2 = 0.01**2, 0.03**2
    return (2 * mu_a * mu_b + c1) * (2 * cov + c2) / ((mu_a**2 + mu_b**2 + c1) * (va + vb + c2))


@pytest.mark.parametrize("border", [0, 3])
def test_photometric_error_matches_its_numpy_twin(border):
    a, b = torch.rand(2, 1, 3, 40, 44, dtype=torch.float64)
    ssim = np.stack([numpy_ssim(x.numpy(), y.numpy()) for x, y in zip(a[0], b[0], strict=True)])
    error = 0.85 * (1 - ssim) + 0.15 * np.abs((a - b)[0].numpy())
    cut = error[:, border : 40 - border, border : 44 - border]
    assert float(photometric_error(a, b, border_px=border)) == pytest.approx(cut.mean(), rel=1e-4)


@pytest.mark.parametrize("size", [(40, 44), (7, 64)])
def test_photometric_error_has_the_gradient_of_kornias_ssim(size):
    image, target = (torch.rand(2, 3, *size, dtype=torch.float64, requires_grad=True) for _ in range(2))
    reference = 0.85 * (1 - kornia.metrics.ssim(image, target, window_size=11)) + 0.15 * (image - target).abs()
    for one in (image, target):
        (expected,) = torch.autograd.grad(reference.mean(), one, retain_graph=True)
        (found,) = torch.autograd.grad(photometric_error(image, target).mean(), one)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_validation_in_inference_mode_leaves_training_its_gradient():
    """Nothing that inference mode makes may be kept: Lightning validates in it, and training goes on at the same size."""
    image, target = torch.rand(2, 1, 3, 24, 28)
    with torch.inference_mode():
        photometric_error(image, target)
    image.requires_grad_()
    photometric_error(image, target).sum().backward()
    assert float(image.grad.abs().max()) > 0


@pytest.mark.parametrize("first, second", [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_ssim_is_taken_in_float32_whatever_autocast_left(first, second):
    """Under bfloat16 a network's image met a float32 photograph, and the product of the two raised."""
    image, target = torch.rand(1, 3, 24, 28).to(first), torch.rand(1, 3, 24, 28).to(second)
    with torch.autocast("cpu", torch.bfloat16):
        found = photometric_error(image, target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, photometric_error(image.float(), target.float()))


def test_equal_images_have_no_error():
    image = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(photometric_error(image, image), torch.zeros(2), atol=1e-6, rtol=0)
    stack, mask = torch.rand(2, 4, 3, 24, 24), torch.ones(2, 4, dtype=torch.bool)
    assert float(sharpness(stack, stack, mask).abs().max()) == 0


def test_masked_slices_do_not_count():
    rendered, stack = torch.rand(2, 2, 4, 3, 24, 24)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    expected = reconstruction(rendered[:1, :2], stack[:1, :2], mask[:1, :2])
    torch.testing.assert_close(reconstruction(rendered, stack, mask)[:1], expected)
    torch.testing.assert_close(
        sharpness(rendered, stack, mask)[:1], sharpness(rendered[:1, :2], stack[:1, :2], mask[:1, :2])
    )


def test_coarse_aif_takes_the_sharpest_real_slice():
    stack = torch.rand(1, 3, 3, 6, 6)
    defocus = torch.tensor([3.0, -0.5, 0.1])[None, :, None, None].expand(1, 3, 6, 6)
    torch.testing.assert_close(coarse_aif(stack, defocus, torch.tensor([[True, True, True]])), stack[:, 2])
    torch.testing.assert_close(coarse_aif(stack, defocus, torch.tensor([[True, True, False]])), stack[:, 1])


@pytest.mark.parametrize("normalisation", ["variance", "released"])
def test_blurrier_images_have_more_aif_blur(normalisation):
    noise = torch.rand(1, 3, 48, 48, dtype=torch.float64).numpy()
    blurred = [torch.from_numpy(gaussian_filter(noise, (0, 0, sigma, sigma))) for sigma in (1, 2, 3)]
    values = [float(aif_blur(one, normalisation=normalisation)) for one in blurred]
    assert values == sorted(values)


@pytest.mark.parametrize("shape", [(9, 11), (24, 20)])
def test_aif_blur_is_its_numpy_twin(shape):
    """A Laplacian of Gaussian, its mean taken off, edges repeated; grey as ITU-R BT.601 has it."""
    image = 0.5 + 0.5 * torch.rand(2, 3, *shape, dtype=torch.float64)
    y, x = np.mgrid[-3:4, -3:4]
    kernel = (x * x + y * y - 2) * np.exp(-(x * x + y * y) / 2)
    for index, one in enumerate(image.numpy()):
        grey = np.tensordot([0.299, 0.587, 0.114], one, 1)
        energy = np.sum(correlate(grey, kernel - kernel.mean(), mode="nearest") ** 2)
        numbers = {"variance": np.sum((grey - grey.mean()) ** 2) + 1, "released": grey.size - grey.mean() ** 2}
        for normalisation, number in numbers.items():
            found = float(aif_blur(image, normalisation=normalisation)[index])
            assert found == pytest.approx(-0.25 * math.log(energy / number + 1e-8), rel=1e-9)
    with pytest.raises(ValueError, match="expected 'variance' or 'released'"):
        aif_blur(image, normalisation="none")


def test_aif_blur_of_a_flat_image_is_the_floor():
    assert float(aif_blur(torch.full((1, 3, 16, 16), 0.5))) == pytest.approx(-0.25 * math.log(1e-8), rel=1e-3)


def test_smoothness_is_the_edge_weighted_gradient():
    value, image = torch.rand(1, 8, 9, dtype=torch.float64), torch.rand(1, 3, 8, 9, dtype=torch.float64)
    v, i = value[0].numpy(), image[0].numpy()
    x = np.abs(np.diff(v, axis=1)) * np.exp(-np.abs(np.diff(i, axis=2)).mean(0))
    y = np.abs(np.diff(v, axis=0)) * np.exp(-np.abs(np.diff(i, axis=1)).mean(0))
    assert float(depth_smoothness(value, image)) == pytest.approx(x.mean() + y.mean())


def sample() -> tuple[Prediction, FocalStack]:
    depth_m = 1 + 3 * torch.rand(2, 24, 24)
    prediction = Prediction(depth_m, torch.rand(2, 3, 24, 24), torch.randn(2, 3, 24, 24), torch.rand(2, 3, 3, 24, 24))
    stacks = [FocalStack.single(torch.rand(3, 3, 24, 24), FOCUS_M[:3], CAMERA, 0.5, 10.0) for _ in range(2)]
    return prediction, FocalStack.collate(stacks)


def test_total_is_the_weighted_sum_and_weight_zero_is_left_out():
    weights = {"reconstruction": 2.0, "aif_consistency": 0.5, "aif_blur": 0.0, "smoothness": 3.0, "sharpness": 1.0}
    terms = SelfSupervisedLoss(**weights)(*sample())
    assert set(terms) == {"reconstruction", "aif_consistency", "smoothness", "sharpness", "total"}
    expected = sum(weights[name] * value for name, value in terms.items() if name != "total")
    torch.testing.assert_close(terms["total"], expected)


def test_default_terms_and_weights():
    terms = SelfSupervisedLoss()(*sample())
    assert set(terms) == {"reconstruction", "aif_consistency", "smoothness", "total"}
    expected = terms["reconstruction"] + 0.1 * terms["aif_consistency"] + 0.01 * terms["smoothness"]
    torch.testing.assert_close(terms["total"], expected)


def test_the_coarse_aif_has_no_gradient():
    prediction, stack = sample()
    stack.images.requires_grad_()
    prediction.aif.requires_grad_()
    terms = SelfSupervisedLoss(reconstruction=0, smoothness=0, aif_consistency=1.0)(prediction, stack)
    terms["total"].sum().backward()
    assert stack.images.grad is None and float(prediction.aif.grad.abs().sum()) > 0


def test_unknown_choices_are_refused():
    with pytest.raises(InputError, match="smoothness_domain"):
        SelfSupervisedLoss(smoothness_domain="metres")
    with pytest.raises(InputError, match="blur_normalisation"):
        SelfSupervisedLoss(blur_normalisation="none")
