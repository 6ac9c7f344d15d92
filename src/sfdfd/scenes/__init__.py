"""Scenes: all-in-focus images with depth, procedural, path-traced or from RGB-D files, and their rendering into stacks."""
