"""What a run leaves on the disk: its directory, its settings, and where its numbers come from."""

from .files import atomic_path, write_json, write_text
from .provenance import device_name, versions
from .run_directory import RunDirectory, all_runs
from .settings import Method, Settings, check_count

__all__ = [
    "Method",
    "RunDirectory",
    "Settings",
    "all_runs",
    "atomic_path",
    "check_count",
    "device_name",
    "versions",
    "write_json",
    "write_text",
]
