"""Methods that turn a focal stack into depth and an all-in-focus image."""
