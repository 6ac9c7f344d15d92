"""The page on which it is done: uploads, jobs, and what is shown of them."""
