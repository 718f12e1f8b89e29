"""Handling of termination signals, from the first import of the program to its last line.

A handler never raises an exception: that could occur anywhere, interrupt an operation that must complete, or be
swallowed by a callback. It either ends the process at once, or records that the run is to stop:

=========================  ===================================================================================
state                      effect of a signal
=========================  ===================================================================================
nothing would be lost      ends the process at once, after a message of one line
a model is being trained   the run stops and saves the model; a second signal ends the process at once
the model is being saved,  takes effect when it is saved; a third signal ends the process at once
or the run is stopping
the model is saved         none; a second signal ends the process, with the exit status of the run
=========================  ===================================================================================

A signal that was ignored when the program was started, as ``nohup`` does, stays ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

#: The termination signals that this system has.
NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name))

#: The exit status of a command ended by a signal is this plus the signal's number.
SIGNALLED = 128

_STANDARD_ERROR = 2

#: Functions to call, last one first, before a signal ends the process.
_cleanups: list[Callable[[], None]] = []


def install(name: str = "fastlstm") -> None:
    """Install the handlers; messages about a signal begin with ``name``."""
    global _name
    _name = name
    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


def install_for_module() -> None:
    """Install the handlers if Python was started as ``python -m fastlstm...``."""
    # While Python locates the module, `sys.argv` is "-m" and then the arguments of the module.
    for module in sys.orig_argv[-len(sys.argv) :][:1]:
        if module.removeprefix("-m").partition(".")[0] == "fastlstm":
            install()


def ignore() -> None:
    """Ignore all signals: from here on, none changes the exit status."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def cleanup(function: Callable[[], None]) -> Iterator[None]:
    """While the context is active, call ``function`` before a signal ends the process."""
    _cleanups.append(function)
    try:
        yield
    finally:
        _cleanups.remove(function)


class Stop:
    """While this context is active, signals stop the run rather than the process. Calling it returns whether to stop.

    Attributes
    ----------
    status : exit status of the run, 0 unless a signal has been received.
    lost : returns a description of what would be lost if the process ended now, or
        ``None``: then a signal ends it at once.
    """

    def __init__(self) -> None:
        self.status = 0
        self.lost: Callable[[], str | None] = lambda: None
        self._received = 0
        self._saving = self._done = False

    def __call__(self) -> bool:
        """Whether the run is to stop; once this has returned true, a second signal waits until the model is saved."""
        self._saving = self._saving or self.status != 0
        return self.status != 0

    def __enter__(self) -> Stop:
        global _receive
        _receive = self._note
        return self

    def __exit__(self, *error: object) -> None:
        global _receive
        if not self._done:
            _receive = _end

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """While the model is being saved, a second signal does not end the process."""
        before, self._saving = self._saving, True
        try:
            yield
        finally:
            self._saving = before

    def done(self) -> None:
        """To be called when the model is saved: from here on, signals do not change the exit status."""
        self._done, self._received = True, 0

    def _note(self, number: int) -> None:
        self._received += 1
        if self._done:
            if self._received > 1:
                _leave(self.status)
            return
        lost = self.lost()
        if lost is None and not self._saving:
            _end(number, " before its first step: nothing is saved")
        self.status = self.status or SIGNALLED + number
        if self._received > (2 if self._saving else 1):
            _end(number, f" at once: {lost}")


def _end(number: int, how: str = "") -> None:
    _leave(SIGNALLED + number, f"{_name}: stopped by {signal.Signals(number).name}{how}\n")


def _leave(status: int, line: str = "") -> None:
    """End the process at once, without flushing its buffers, which may be in use."""
    ignore()
    for function in reversed(_cleanups):
        with contextlib.suppress(Exception):
            function()
    with contextlib.suppress(OSError):
        if line and os.isatty(_STANDARD_ERROR):
            line = f"\n{line}"  # after the terminal's ^C
        os.write(_STANDARD_ERROR, line.encode("utf-8", "replace"))
    os._exit(status)


def _handle(number: int, frame: FrameType | None) -> None:
    _receive(number)


_name = "fastlstm"
#: The current reaction to a signal, called with its number.
_receive: Callable[[int], None] = _end
