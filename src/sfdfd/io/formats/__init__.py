"""Readers of image formats, one module each; RAW, HEIC and video need optional packages."""
