"""The web page of ``python -m sfdfd.app``: uploads, jobs, and their results."""
