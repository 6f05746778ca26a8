# SPDX-License-Identifier: Apache-2.0
"""Rules as plain data, and back: for programs beside the daemon that show rules, or ask what they would do."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from asap2.nic import rules
from asap2.nic.rules import Action, Masked, Match, Rule
from asap2.nic.silicon.ports import Deliver, Miss, Port, PortKind

KIND = "action"
"""The key of an action's kind, the name of its class in :mod:`asap2.nic.rules`."""


def of_rule(rule: Rule) -> dict[str, Any]:
    """*rule* as JSON-able data: numbers of a match and its mask as pairs, octets in hexadecimal."""
    return {
        "table": rule.table,
        "in_port": rule.in_port,
        "priority": rule.priority,
        "match": {name: [masked.value, masked.mask] for name, masked in rule.match.used().items()},
        "actions": of_actions(rule.actions),
    }


def to_rule(data: Mapping[str, Any]) -> Rule:
    """The inverse of :func:`of_rule`. KeyError, TypeError or ValueError for what it has not given."""
    match = Match(**{name: Masked(*pair) for name, pair in data["match"].items()})
    return Rule(data["table"], data["in_port"], data["priority"], match, to_actions(data["actions"]))


def of_port(port: Port) -> dict[str, Any]:
    """*port* as JSON-able data."""
    return {each.name: _of(getattr(port, each.name)) for each in fields(port)}


def to_port(data: Mapping[str, Any]) -> Port:
    """The inverse of :func:`of_port`. As :func:`to_rule` for what it has not given."""
    known = {name: _to(value) for name, value in data.items()}
    known |= {"kind": PortKind(known["kind"]), "deliver": Deliver(known["deliver"]), "miss": Miss(known["miss"])}
    return Port(**known)


def of_actions(actions: tuple[Action, ...]) -> list[Any]:
    """*actions* as JSON-able data."""
    return [_of(action) for action in actions]


def to_actions(data: list[Any]) -> tuple[Action, ...]:
    """The inverse of :func:`of_actions`. As :func:`to_rule` for what it has not given."""
    return tuple(_to(action) for action in data)


def _of(value: Any) -> Any:
    if isinstance(value, Masked):
        return {KIND: "Masked", "value": value.value, "mask": value.mask}
    if isinstance(value, bytes):
        return {KIND: "bytes", "hex": value.hex()}
    if isinstance(value, enum.IntEnum):
        return int(value)
    if isinstance(value, tuple):
        return [_of(one) for one in value]
    if hasattr(value, "__dataclass_fields__"):
        return {KIND: type(value).__name__, **{each.name: _of(getattr(value, each.name)) for each in fields(value)}}
    return value


def _to(data: Any) -> Any:
    if isinstance(data, list):
        return tuple(_to(one) for one in data)
    if not isinstance(data, dict):
        return data
    kind = data[KIND]
    if kind == "bytes":
        return bytes.fromhex(data["hex"])
    rest = {name: _to(value) for name, value in data.items() if name != KIND}
    if kind == "Hash":
        rest["algorithm"] = rules.HashAlgorithm(rest["algorithm"])
    return getattr(rules, kind)(**rest)
