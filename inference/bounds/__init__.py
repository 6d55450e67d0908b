"""Between which numbers log p(x) lies."""

from .certificate import Certificate
from .certify import certify

__all__ = ["Certificate", "certify"]
