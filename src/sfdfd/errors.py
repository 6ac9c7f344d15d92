"""The one exception that means "what you gave cannot be used": commands print it as one line and exit with code 2."""


class InputError(ValueError):
    """Bad input from the user; the message says what was expected, what came, and the key or file that mends it."""
