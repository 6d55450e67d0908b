"""Lower and upper bounds of log p(x)."""

from .certificate import Certificate
from .certify import certify

__all__ = ["Certificate", "certify"]
