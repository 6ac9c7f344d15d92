"""Settings follow the renderer."""

from dataclasses import replace

from sfdfd.optics import DefocusRenderer
from sfdfd.refinement.settings import RefinementSettings, settings_for


def test_settings_follow_the_renderer():
    without, with_occlusion = (
        settings_for(DefocusRenderer(weighting=weighting), {}) for weighting in ("source", "occlusion")
    )
    assert with_occlusion == RefinementSettings()
    assert without.bending == 0 and with_occlusion.outlier_level > without.outlier_level
    assert without.coarse_min_blur_px == 0  # without occlusion a coarse size always helps
    assert settings_for(DefocusRenderer(), {"bending": 3.0}) == replace(without, bending=3.0)
