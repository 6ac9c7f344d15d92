"""Fully self-supervised depth from defocus: predict -> render -> compare."""

__version__ = "0.1.0"
