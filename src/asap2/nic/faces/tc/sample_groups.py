# SPDX-License-Identifier: Apache-2.0
"""The psample groups that actions sample for (net/psample/psample.c, psample_group_get)."""

from __future__ import annotations

from asap2.nic.faces.tc.shared_actions import SharedActions


class SampleGroups:
    """The groups of the actions "sample" among *actions*."""

    def __init__(self, actions: SharedActions) -> None:
        self._actions = actions
        self._changes = 0
        self._groups: dict[int, int] = {}

    def current(self) -> dict[int, int]:
        """How many actions each group has, in the order in which the groups came."""
        changes = self._actions.table.changes("sample")
        if changes != self._changes:
            self._changes = changes
            used = self._counted()
            kept = {group: used.pop(group) for group in self._groups if group in used}
            self._groups = kept | used
        return self._groups

    def _counted(self) -> dict[int, int]:
        used: dict[int, int] = {}
        owners = self._actions.owners("sample")
        for index, instance in self._actions.table.of("sample"):
            if instance is None:
                owner, at = owners[index]
                options = owner.actions[at].options
            else:
                options = instance.parsed.options
            group: int = dict(options)["psample_group"]
            used[group] = used.get(group, 0) + 1
        return used
