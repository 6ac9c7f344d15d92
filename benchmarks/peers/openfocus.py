"""OpenFocus (github.com/Xinzhe99/OpenFocus, MIT): fusion without depth, by one of four methods.

Needs opencv-python, dtcwt, scipy.
"""

import sys
from unittest.mock import MagicMock

from common import arguments, read_stack, write_answer


def main() -> None:
    methods = ("guided_filter", "dct", "dtcwt", "gfgfgf")
    options = arguments(__doc__, method={"choices": methods, "required": True})
    for name in ("PyQt6", "PyQt6.QtWidgets", "PyQt6.QtGui"):  # of its windows, which fusion does not open
        sys.modules.setdefault(name, MagicMock())
    from multi_focus_fusion import MultiFocusFusion  # of the checkout

    images = read_stack(options.input).images
    fused = MultiFocusFusion(algorithm=options.method).fuse([image[..., ::-1].copy() for image in images])  # BGR
    write_answer(options.output, aif=fused[..., ::-1])


if __name__ == "__main__":
    main()
