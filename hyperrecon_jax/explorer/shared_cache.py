"""A cache for threads: those that ask for the same value at the same time wait for one computation of it."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class SharedCache:
    """Values by key; those that nobody asked for longest are removed first. Values of other keys never wait for each other.

    Args:
        size: how many values are kept.
    """

    def __init__(self, size: int):
        self._size = size
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._key_locks: dict[Hashable, threading.Lock] = {}  # of the values that are being computed

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of a key; `make()` computes it if it is not there."""
        with self._lock:
            if key in self:
                self._values.move_to_end(key)
                return self._values[key]
            key_lock = self._key_locks.setdefault(key, threading.Lock())
        with key_lock:
            if key not in self:
                value = make()
                with self._lock:
                    self._values[key] = value
                    self._key_locks.pop(key, None)
                    while len(self._values) > self._size:
                        self._values.popitem(last=False)
                return value
        return self.get(key, make)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def clear(self) -> None:
        """Remove all values."""
        with self._lock:
            self._values.clear()
