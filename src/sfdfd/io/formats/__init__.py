"""Photographs as cameras and phones write them, beside JPEG, PNG and TIFF; each kind needs a package of its own."""
