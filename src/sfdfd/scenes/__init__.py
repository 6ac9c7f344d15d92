"""Scenes: all-in-focus images with depth, made from nothing or read, which one wrapper renders into stacks."""
