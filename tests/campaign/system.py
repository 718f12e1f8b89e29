"""System calls of this process that change files: observed, failing, or the last ones before the process is killed.

Every call counts, as the system sees it: `open` gives files whose writes are those of the buffer, not of the caller.
"""

import builtins
import contextlib
import io
import os
import signal

#: Functions of `os` that change files, or reserve space and names; reading ones that open folders are among them.
_FUNCTIONS = ("open", "fsync", "replace", "rename", "link", "unlink", "mkdir", "chmod", "fchmod", "ftruncate", "write")
#: Those that can fail; a file that cannot be removed would stay.
_FAILING = {*_FUNCTIONS} - {"unlink"}


class System(contextlib.ExitStack):
    """While active, `call` makes all these calls of the process."""

    def __init__(self):
        super().__init__()
        self._open = open

    def __enter__(self):
        for name in _FUNCTIONS:
            if hasattr(os, name):
                self._replace(os, name, self._through_call(name, getattr(os, name)))
        self._replace(builtins, "open", self._opened)
        return super().__enter__()

    def call(self, name, function, *arguments, **settings):
        """Make the call ``name``; its arguments are those of the function of `os`, or the file and the data."""
        return function(*arguments, **settings)

    def _replace(self, owner, name, function):
        self.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, function)

    def _through_call(self, name, function):
        def calling(*arguments, **settings):
            return self.call(name, function, *arguments, **settings)

        return calling

    def _opened(self, path, mode="r", *arguments, **settings):
        if not set(mode) & set("wxa+"):
            return self._open(path, mode, *arguments, **settings)
        assert "b" in mode, "files of text are not observed"
        return io.BufferedWriter(self.call("open", lambda path, mode: _File(self, path, mode), path, mode))


class _File(io.FileIO):
    """A file opened for writing, whose writes go through a `System`."""

    def __init__(self, system, path, mode):
        super().__init__(path, mode.replace("b", ""))
        self._system = system

    def write(self, data):
        return self._system.call("write", lambda file, data: io.FileIO.write(file, data), self, data)


class Counting(System):
    """Counts the calls; ``names`` are those made."""

    def __init__(self):
        super().__init__()
        self.names = []

    def call(self, name, function, *arguments, **settings):
        self.names.append(name)
        return function(*arguments, **settings)


class Failing(System):
    """The call numbered ``at``, counted from 0, fails with an error, and if ``lasting`` all later ones.

    A write that fails has written half of its data before.
    """

    def __init__(self, at, number, *, lasting=False):
        super().__init__()
        self._left, self._number, self._lasting = at, number, lasting

    def call(self, name, function, *arguments, **settings):
        self._left -= 1
        fails = self._left == -1 or (self._lasting and self._left < 0)
        if fails and name in _FAILING:
            if name == "write":
                _write_half(function, *arguments)
            raise OSError(self._number, os.strerror(self._number))
        return function(*arguments, **settings)


class Dying(System):
    """Kills the process before the call numbered ``at``, counted from 0; in the middle of it if it is a write."""

    def __init__(self, at, *, halfway=False):
        super().__init__()
        self._left, self._halfway = at, halfway

    def call(self, name, function, *arguments, **settings):
        if self._left == 0:
            if name == "write" and self._halfway:
                _write_half(function, *arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
        return function(*arguments, **settings)


def _write_half(function, file, data):
    function(file, bytes(data)[: len(data) // 2])
