"""Memory of a process: bounded while something is done that must not take more, and measured."""

import contextlib
import os
import resource
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_STATM = Path("/proc/self/statm")

#: Whether the system reports the memory of a process, and bounds it.
IS_KNOWN = _STATM.exists()


@contextlib.contextmanager
def bounded_memory(size):
    """While active, `MemoryError` is raised when the process takes so many bytes of address space more than before."""
    if not IS_KNOWN:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_pages()[0] * _PAGE + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def resident_memory():
    """Bytes of memory of this process."""
    return _pages()[1] * _PAGE


def _pages():
    """Size of the address space, and of what is resident, in pages."""
    return [int(number) for number in _STATM.read_text().split()[:2]]
