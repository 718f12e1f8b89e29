"""How many worker threads a process should use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from fastlstm.errors import ConfigError

#: Environment variable that sets the number of worker threads where no option does.
VARIABLE = "FASTLSTM_THREADS"

_CGROUP = Path("/sys/fs/cgroup")


def default_threads() -> int:
    """``FASTLSTM_THREADS``, or all cores this process may use.

    Those are the cores of its affinity mask, no more than its cgroup's quota of processor time, and no more than
    ``NUMBA_NUM_THREADS`` where that is set.

    Raises
    ------
    ConfigError
        When one of the variables is not a whole number of at least 1.
    """
    if (wished := _variable(VARIABLE)) is not None:
        return wished
    limits = [_affinity(), _quota(_CGROUP), _variable("NUMBA_NUM_THREADS")]
    return min(limit for limit in limits if limit is not None)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(root: Path) -> int | None:
    """Whole cores granted by cgroup v2 or v1, at least one; ``None`` without a limit."""
    try:
        if (unified := root / "cpu.max").exists():
            quota, period = unified.read_text().split()
        else:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        if quota in ("max", "-1"):
            return None
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _variable(name: str) -> int | None:
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1, not {text!r}")
    return int(text)
