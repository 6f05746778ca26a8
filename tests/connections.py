# SPDX-License-Identifier: Apache-2.0
"""A table of connections in memory, for tests of those who show them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace

from asap2.nic.conntrack.view import Change, Connection, Statistics, Tuple


class Table:
    """Connections by zone and tuple, either way."""

    def __init__(self, *connections: Connection) -> None:
        self.limit = 262144
        self._all: dict[int, Connection] = {}
        self._tuples: dict[tuple[int, Tuple], int] = {}
        self._made = 0
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

    def count(self) -> int:
        """How many."""
        return len(self._all)

    def statistics(self) -> list[Statistics]:
        """All were made on the first CPU."""
        return [Statistics(insert=self._made if cpu == 0 else 0) for cpu in range(os.cpu_count() or 1)]
