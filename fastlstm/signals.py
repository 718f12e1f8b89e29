"""Signals that ask the program to end, from its first import to its last line.

A handler never raises an exception, which could come up anywhere, break up what must stay whole, or be swallowed by a
callback. It leaves the process at once, or notes that the run is to stop:

=========================  ===================================================================================
while                      a signal
=========================  ===================================================================================
nothing would be lost      ends the process at once, with one line
a model is being trained   asks the run to stop and to save; a second one ends the process at once
the model is being saved,  waits until it is saved; a third one ends the process at once
or the run is stopping
all is done                changes nothing; a second one ends the process, with the status it would have had
=========================  ===================================================================================

A signal that the caller of the program has set to be ignored, as ``nohup`` does, stays ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

#: The signals that ask a program to end, those that this system has.
NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name))

#: Exit status of a command that a signal ended is this plus the signal's number.
SIGNALLED = 128

_STANDARD_ERROR = 2

#: What the process must do before it leaves at once, the last one first.
_cleanups: list[Callable[[], None]] = []


def install(name: str = "fastlstm") -> None:
    """Handle the signals; ``name`` begins the line about one."""
    global _name
    _name = name
    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


def install_for_module() -> None:
    """Handle the signals if Python was started to run a module of this package, ``python -m fastlstm...``."""
    # Python has "-m" in `sys.argv` for the module while it looks for it; the arguments after it are the module's own.
    for module in sys.orig_argv[-len(sys.argv) :][:1]:
        if module.removeprefix("-m").partition(".")[0] == "fastlstm":
            install()


def ignore() -> None:
    """Nothing is left to do but to end: no signal changes the exit status any more."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def cleanup(function: Callable[[], None]) -> Iterator[None]:
    """Have ``function`` called before a signal ends the process at once, while the context lasts."""
    _cleanups.append(function)
    try:
        yield
    finally:
        _cleanups.remove(function)


class Stop:
    """Makes signals stop a run rather than the process, while it is entered; calling it says whether one has come.

    Attributes
    ----------
    status : exit status to end with, 0 while no signal has come.
    lost : says what would be lost if the process ended now; ``None`` while that is nothing, and signals need not wait.
    """

    def __init__(self) -> None:
        self.status = 0
        self.lost: Callable[[], str | None] = lambda: None
        self._received = 0
        self._saving = self._done = False

    def __call__(self) -> bool:
        """Whether the run is to stop; from then on it is on its way to be saved, and a second signal waits for that."""
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
        """Let the model be saved whole, whatever a second signal says."""
        before, self._saving = self._saving, True
        try:
            yield
        finally:
            self._saving = before

    def done(self) -> None:
        """The model is saved: from here on the exit status stays as it is."""
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
    """End the process, whatever it is doing: not even its buffers, which may be in use, are touched."""
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
#: What is done with a signal's number now.
_receive: Callable[[int], None] = _end
