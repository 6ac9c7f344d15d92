"""The exception for unusable input, and the checks that raise it.

Commands print it as one line and exit with code 2.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import reprlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

__all__ = [
    "InputError",
    "checked_choice",
    "checked_int",
    "checked_keywords",
    "checked_number",
    "one_line",
    "short_repr",
]

Function = TypeVar("Function", bound=Callable[..., Any])


class InputError(ValueError):
    """Bad input from the user; the message names the key or file, what was expected and what was given.

    Examples:
        >>> from sfdfd import Camera
        >>> try:
        ...     Camera(focal_length_m=-0.05, f_number=2.0, pixel_pitch_m=4e-6)
        ... except InputError as error:
        ...     print("camera.focal_length_m" in str(error))
        True
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)


class _ShortRepr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        return (
            repr(x) if abs(x) < 10**40 else "a whole number of more than 40 digits"
        )  # Python refuses to print very long ones


_SHORT = _ShortRepr()
_SHORT.maxstring = _SHORT.maxother = 120
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 8
_SHORT.maxlevel = 3


def short_repr(value: Any) -> str:
    """Return a repr for messages, with long or deep values cut (aliases in YAML may nest without end)."""
    text = _SHORT.repr(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def checked_keywords(function: Function) -> Function:
    """Decorate a function so that an unknown keyword raises an :class:`InputError` that lists the valid ones."""
    known = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD) and name not in ("self", "cls")
    ]

    @functools.wraps(function)
    def checked(*args: Any, **keywords: Any) -> Any:
        for name in keywords:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {close[0]}? " if close else ""
                owner = function.__qualname__.removesuffix(".__init__")
                raise InputError(f"{owner}: no argument {name!r}; {hint}known are {', '.join(known)}")
        return function(*args, **keywords)

    return checked  # type: ignore[return-value] # of the same signature


def checked_number(
    value: Any, where: str, *, least: float | None = None, most: float = math.inf, infinite: bool = False
) -> float:
    """Return ``value`` as a float: positive, or from ``least`` to ``most``; finite unless ``infinite``; no bool, no NaN.

    Raises:
        InputError: for any other value; ``where`` names the key or file.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    high_enough = number > 0 if least is None else number >= least
    if not (high_enough and number <= most) or (math.isinf(number) and not infinite):
        expected = "a positive number" if least is None else f"a number of {least:g} or more"
        expected += "" if math.isinf(most) else f", {most:g} at most"
        raise InputError(f"{where}: expected {expected}, got {short_repr(value)}")
    return number


def checked_int(value: Any, where: str, least: int, most: int | None = None) -> int:
    """Return ``value`` if it is a whole number from ``least`` to ``most``.

    Raises:
        InputError: for any other value; ``where`` names the key or file.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        expected = f"a whole number of {least} or more" if most is None else f"a whole number from {least} to {most}"
        raise InputError(f"{where}: expected {expected}, got {short_repr(value)}")
    return value


def checked_choice(value: Any, where: str, options: Sequence[Any]) -> Any:
    """Return ``value`` if it is one of the options (``True`` and 1 differ).

    Raises:
        InputError: for any other value; ``where`` names the key or file.
    """
    if not any(value is option or (type(value) is type(option) and value == option) for option in options):
        names = [str(option).lower() if isinstance(option, bool) else str(option) for option in options]
        raise InputError(f"{where}: expected {', '.join(names[:-1])} or {names[-1]}, got {short_repr(value)}")
    return value


def one_line(error: BaseException) -> str:
    """Return the message of an exception in one line."""
    return " ".join(str(error).split()) or type(error).__name__
