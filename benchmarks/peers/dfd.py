"""dfd (github.com/hollyjackson/dfd, MIT): alternating minimization for each scene, in the settings of its Make3D preset.

It is told camera, focus distances and depth range. Its blur is Gaussian in codes; ours is a disc in linear light. Needs
scipy, scikit-image, opencv-python, matplotlib, exifread, gco-wrapper.
"""

import sys

import numpy as np
from common import arguments, read_stack, write_answer


def main() -> None:
    options = arguments(__doc__, epochs={"type": int, "default": 5}, kernel={"type": int, "default": 0})
    sys.path.insert(0, str(options.repository / "src"))
    import alternating_minimization  # of the checkout
    import initialization
    import utils
    from config import MAKE3D
    from dataset_params import DatasetParams

    stack = read_stack(options.input)
    camera = DatasetParams(
        f=stack.focal_length_m, D=stack.focal_length_m / stack.f_number, Zf=stack.focus_distances_m.astype(np.float32),
        ps=stack.pixel_pitch_m, min_Z=stack.near_m, max_Z=stack.far_m, thresh=0.5,
    )  # fmt: skip
    images = stack.images.astype(np.float32)
    depth_m, aif, *_ = alternating_minimization.alternating_minimization(
        images,
        camera,
        options.kernel or utils.kernel_size_heuristic(*images.shape[1:3]),
        num_epochs=options.epochs,
        aif_init=initialization.compute_aif_initialization(images, MAKE3D.aif_lambda, MAKE3D.aif_sharpness_measure),
        num_Z=MAKE3D.num_z,
        T_0=MAKE3D.t_0,
        alpha=MAKE3D.alpha,
        windowed_mse=True,
        window_size=MAKE3D.window_size,
        save_losses=False,
        verbose=False,
    )
    write_answer(options.output, depth_m, np.clip(np.round(aif), 0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
