"""From a focal stack to a prediction, and from a data set to figures."""
