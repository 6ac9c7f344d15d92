"""Losses, metrics, left-out slices, exposure, and the diagnosis of a stack."""
