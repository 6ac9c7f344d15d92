"""Evaluation of methods on data sets."""
