"""From photographs to a focal stack: alignment, exposure, and the camera where it is not known."""
