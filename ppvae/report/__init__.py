"""The page of a run: one self-contained HTML file, for readers who have no Python; and of two runs, side by side.

Everything on it is read from the files of the run directory: neither torch nor the pair is needed.
"""

from .comparison import Comparison, compare
from .page import write_report
from .sweep_page import write_sweep_page

__all__ = ["Comparison", "compare", "write_report", "write_sweep_page"]
