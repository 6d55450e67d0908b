"""An estimate cut into shards, computed by any ``concurrent.futures.Executor`` and kept in a folder."""

from .executors import Computing, opened
from .in_shards import in_shards

__all__ = ["Computing", "in_shards", "opened"]
