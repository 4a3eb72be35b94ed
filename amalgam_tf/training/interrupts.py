"""Ctrl-C between two steps, never inside one."""

import signal


class Interrupted(KeyboardInterrupt):
    """Ctrl-C was pressed; the state is saved."""


class Interrupts:
    """Turns Ctrl-C into a flag while it is entered."""

    def __enter__(self):
        self.seen = False
        self._before = None
        try:
            self._before = signal.signal(signal.SIGINT, self._note)
        except ValueError:  # not the main thread: the caller handles signals
            pass
        return self

    def _note(self, *_):
        self.seen = True

    def __exit__(self, *_):
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
