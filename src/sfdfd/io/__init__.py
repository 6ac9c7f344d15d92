"""Files: images in many formats with EXIF and colour profiles, ``stack.yaml``, archives, downloads and atomic writes."""
