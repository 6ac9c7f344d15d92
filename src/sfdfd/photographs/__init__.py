"""Turn a folder of photographs into a focal stack: read, select, align and calibrate slices, and score left-out ones."""
