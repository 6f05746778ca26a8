# SPDX-License-Identifier: Apache-2.0
"""A table of connections in memory, for tests of those who show them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

from asap2.nic.conntrack.view import SETTINGS, Change, Connection, Expectation, Statistics, Tuple
from asap2.nic.silicon import timeouts
from asap2.nic.silicon.timeouts import TimeoutPolicy


class Timeouts:
    """Timeout policies and default timeouts."""

    def __init__(self) -> None:
        self.named: dict[str, TimeoutPolicy] = {}
        self._defaults = dict(timeouts.DEFAULTS)

    def __iter__(self) -> Iterator[TimeoutPolicy]:
        return iter(self.named.values())

    def get(self, name: str) -> TimeoutPolicy | None:
        """The policy called *name*."""
        return self.named.get(name)

    def put(self, policy: TimeoutPolicy) -> None:
        """Add or change one."""
        self.named[policy.name] = policy

    def delete(self, name: str) -> None:
        """Remove one."""
        del self.named[name]

    def defaults(self, protocol: int) -> timeouts.Timeouts | None:
        """Those of a protocol."""
        return self._defaults.get(protocol)

    def set_defaults(self, protocol: int, values: timeouts.Timeouts) -> None:
        """Set them."""
        self._defaults[protocol] = values


class Table:
    """Connections by zone and tuple, either way."""

    def __init__(self, *connections: Connection) -> None:
        self.limit = 262144
        self.settings = dict.fromkeys(SETTINGS, 0)
        self._all: dict[int, Connection] = {}
        self._tuples: dict[tuple[int, Tuple], int] = {}
        self._made = 0
        self.expected: list[Expectation] = []
        for connection in connections:
            self.insert(connection)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._all.values()))

    def find(self, zone: int, tuple: Tuple) -> Connection | None:
        """The connection that *tuple* is a direction of."""
        return self._all.get(self._tuples.get((zone, tuple), 0))

    def delete(self, connection: Connection) -> bool:
        """Take it out."""
        if self._all.pop(connection.id, None) is None:
            return False
        for tuple_ in (connection.original, connection.reply):
            del self._tuples[connection.zone, tuple_]
        return True

    def delete_all(self, connections: Iterable[Connection]) -> Iterator[Connection]:
        """Take these out."""
        return (one for one in list(connections) if self.delete(one))

    def change(self, connection: Connection, change: Change) -> None:
        """Change it."""
        given = {name: value for name, value in change._asdict().items() if value is not None}
        self._all[connection.id] = replace(self._all[connection.id], **given)

    def insert(self, connection: Connection) -> None:
        """Add one."""
        keys = [(connection.zone, tuple_) for tuple_ in (connection.original, connection.reply)]
        if any(key in self._tuples for key in keys):
            raise OSError(errno.EEXIST, "exists")
        self._made += 1
        self._all[self._made] = replace(connection, id=self._made)
        self._tuples.update(dict.fromkeys(keys, self._made))

    def expectations(self) -> list[Expectation]:
        """Those that a test has added."""
        return list(self.expected)

    def unexpect(self, expectation: Expectation) -> bool:
        """Take it out."""
        found = expectation in self.expected
        self.expected = [one for one in self.expected if one != expectation]
        return found

    def count(self) -> int:
        """How many."""
        return len(self._all)

    def setting(self, name: str) -> int:
        """A setting."""
        return self.settings[name]

    def set(self, name: str, value: int) -> None:
        """Set one."""
        self.settings[name] = value

    def statistics(self) -> list[Statistics]:
        """All were made on the first CPU."""
        return [Statistics(insert=self._made if cpu == 0 else 0) for cpu in range(os.cpu_count() or 1)]
