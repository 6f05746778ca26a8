# SPDX-License-Identifier: Apache-2.0
"""A moment that has passed, as a collector: for whatever shows traffic as it goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from asap2.live.snapshot import Snapshot


class Still:
    """Gives *snapshot* each time, the same object: nothing changes in it."""

    generation = 0

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes."""
        return tuple(node.name for node in self._snapshot.nodes)

    def sample(self) -> Snapshot:
        """The moment."""
        return self._snapshot

    def want_flows(self, nodes: Iterable[str]) -> None:
        """The moment has the details that it has."""

    def want_connections(self, wanted: Mapping[str, frozenset[str]]) -> None:
        """A capture has no single connections."""

    def close(self) -> None:
        """There is nothing to end."""
