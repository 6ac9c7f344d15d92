"""The RGB-D folder of the data tests."""
