"""Compiling, and getting compiled kernels, from several threads and with exceptions in between."""

import threading

import pytest
from numba.core.compiler_lock import global_compiler_lock

from fastlstm.kernels import jit


def add(a, b):
    return a + b


@pytest.fixture
def held_lock():
    """Numba's lock, held as by a thread that is compiling."""
    with global_compiler_lock:
        yield


def test_a_compiled_kernel_is_available_while_another_thread_compiles(held_lock):
    entry = jit.kernel(add)
    expected, got = jit.compiled_for(entry, 1, 2), []
    thread = threading.Thread(target=lambda: got.append(jit.compiled_for(entry, 1, 2)), daemon=True)
    thread.start()
    thread.join(5)
    assert got == [expected]


def test_an_interrupt_during_a_compilation_releases_numbas_lock():
    class Interrupted:
        def __init__(self):
            self.overloads = {}

        def compile(self, argument_types):
            global_compiler_lock.acquire()
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            jit.compiled_for(Interrupted(), 1)
        assert not global_compiler_lock.is_locked()
    finally:
        while global_compiler_lock.is_locked():
            global_compiler_lock.release()
