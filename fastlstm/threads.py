"""The default number of worker threads."""

from __future__ import annotations

import os
from pathlib import Path

from fastlstm.config import MOST_THREADS
from fastlstm.errors import ConfigError

#: Environment variable that sets the number of worker threads when no option does.
VARIABLE = "FASTLSTM_THREADS"

_CGROUP, _MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def default_threads() -> int:
    """``FASTLSTM_THREADS``, or all cores this process may use.

    Those are the cores of its affinity mask, limited by the CPU quotas of its cgroup and of that cgroup's parents, by
    ``NUMBA_NUM_THREADS`` if it is set, and by `fastlstm.config.MOST_THREADS`.

    Raises
    ------
    ConfigError
        When one of the variables is not a whole number of at least 1, or the first is more than ``MOST_THREADS``.
    """
    if (requested := _variable(VARIABLE)) is not None:
        if requested > MOST_THREADS:
            raise ConfigError(f"{VARIABLE} must be at most {MOST_THREADS}, not {requested}")
        return requested
    limits = [usable_cores(), _variable("NUMBA_NUM_THREADS"), MOST_THREADS]
    return min(limit for limit in limits if limit is not None)


def usable_cores() -> int:
    """Number of cores that this process may use: its affinity mask, limited by the quotas of its cgroups."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(limit for limit in [affinity, *map(_quota, _groups(_CGROUP))] if limit is not None)


def _groups(root: Path) -> list[Path]:
    """The folders of this process's cgroup and its parents, of version 2 or of version 1's controller ``cpu``."""
    folders = {root, root / "cpu"}
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            group = (root / "cpu" if controllers else root) / path.lstrip("/")
            folders |= {group, *(parent for parent in group.parents if parent.is_relative_to(root))}
    return sorted(folders)


def _quota(group: Path) -> int | None:
    """Whole cores of a cgroup's quota, at least 1; rounded down, because workers wait for one with a part of a core."""
    try:
        if (unified := group / "cpu.max").exists():
            quota, period = unified.read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        if quota in ("max", "-1"):
            return None
        return max(1, int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _variable(name: str) -> int | None:
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1, not {text!r}")
    return int(text)
