"""Pictures, pages and files of predictions, evaluations and runs."""
