"""Pictures, pages and files of what was found."""
