"""Code made of a function of tensors: recorded by torch, without Python, and compiled by inductor."""

from .inductor import Runner, inductor
from .python_state import PythonState
from .recording import Checks, NoGraph, Recorded, recorded
from .split import split

__all__ = ["Checks", "NoGraph", "PythonState", "Recorded", "Runner", "inductor", "recorded", "split"]
