"""Shares as per cent, on the terminal, on the page and in pictures."""

from __future__ import annotations


def percent(share: float, decimals: int = 0) -> str:
    """A share as per cent; only all is 100 %, and only none is 0 %, whatever the decimals.

    Example:
        >>> percent(0.5), percent(0.996), percent(1.0), percent(0.002), percent(0.0)
        ('50%', '> 99%', '100%', '< 1%', '0%')
        >>> percent(0.9996, decimals=1), percent(1.204)
        ('> 99.9%', '120%')
    """
    text = f"{share:.{decimals}%}"
    least = 10.0**-decimals
    if 0 < share < 1 and text in {f"{0:.{decimals}%}", f"{1:.{decimals}%}"}:
        return f"< {least:.{decimals}f}%" if share < 0.5 else f"> {100 - least:.{decimals}f}%"
    return text
