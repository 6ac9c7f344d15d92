"""Runs: the command line around Hydra, and the record of what ran."""
