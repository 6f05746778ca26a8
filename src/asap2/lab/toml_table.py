# SPDX-License-Identifier: Apache-2.0
"""A table of the topology file, read strictly."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from asap2.errors import UsageError
from asap2.lab.layout import NAME

T = TypeVar("T")


class TopologyError(UsageError):
    """The topology file is wrong; the text says where and how."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What the reader asks a table for: the *kind* of a key is "string", "name", "integer", "boolean", "strings" or
    "tables", and ``limits`` are keywords of JSON Schema."""

    table: tuple[str, ...]
    key: str
    kind: str
    required: bool
    limits: dict[str, Any]
    default: Any


class Table:
    """A TOML table that is read key by key; keys that nobody read are unknown.

    The operator's half maps tables to dataclasses (:mod:`asap2.host.records`), which is too little here: limits and
    defaults depend on a NIC's model and place, references are resolved while they are read, and an error names the
    node, NIC or guest that it is in.
    """

    def __init__(
        self, data: dict[str, Any], where: str, place: tuple[str, ...], ask: Callable[[Asking], object]
    ) -> None:
        self.data = dict(data)
        self.where = where
        self._place = place
        self._ask = ask

    def error(self, key: str, complaint: str) -> TopologyError:
        """What is wrong with *key*."""
        return TopologyError(f"{self.where}: {key} {complaint}")

    def _take(self, key: str, kind: type[T], kind_name: str) -> T | None:
        value = self.data.pop(key, None)
        if value is None:
            return None
        if type(value) is not kind:
            raise self.error(key, f"must be {kind_name}, not {value!r}")
        return value

    def _asked(self, key: str, kind: str, default: Any = None, *, required: bool = False, **limits: Any) -> None:
        self._ask(Asking(self._place, key, kind, required, limits, default))

    def string(
        self,
        key: str,
        limit: int = 256,
        *,
        one_of: tuple[str, ...] = (),
        pattern: re.Pattern[str] | None = None,
    ) -> str | None:
        """The text of *key*, if it is there. What it has to be, *one_of* these or of a *pattern*, the caller checks."""
        more: dict[str, Any] = {"enum": list(one_of)} if one_of else {"maxLength": limit}
        if pattern:
            more["pattern"] = f"^{pattern.pattern}$"
        self._asked(key, "string", **more)
        return self._text(key, limit)

    def needed(self, key: str) -> str:
        """The text of *key*, which must be there."""
        self._asked(key, "string", required=True)
        value = self._text(key, 256)
        if value is None:
            raise self.error(key, "is missing")
        return value

    def _text(self, key: str, limit: int) -> str | None:
        value = self._take(key, str, "a string")
        if value is not None and len(value) > limit:
            raise self.error(key, f"{value!r} has {len(value)} characters, and {limit} is the most")
        return value

    def name(self, key: str, limit: int, default: str | None = None) -> str:
        """A name of at most *limit* characters."""
        self._asked(key, "name", default, required=default is None, maxLength=limit)
        value = self._text(key, limit) or default
        if value is None:
            raise self.error(key, "is missing")
        if not NAME.fullmatch(value):
            raise self.error(key, f"{value!r} must be lower-case letters, digits and inner hyphens")
        return value

    def integer(self, key: str, low: int, high: int | None, default: int | None = None) -> int:
        """A number from *low* to *high*."""
        limits: Any = {"minimum": low} if high is None else {"minimum": low, "maximum": high}
        self._asked(key, "integer", default, required=default is None, **limits)
        value = self._take(key, int, "a whole number")
        if value is None:
            value = default
        if value is None:
            raise self.error(key, "is missing")
        if value < low or (high is not None and value > high):
            allowed = f"at least {low}" if high is None else f"{low} to {high}"
            raise self.error(key, f"is {value}, and must be {allowed}")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        """True or false."""
        self._asked(key, "boolean", default)
        value = self._take(key, bool, "true or false")
        return default if value is None else value

    def strings(self, key: str, count: int | None = None) -> list[str]:
        """A list of texts; that it has to have *count* of them the caller checks."""
        limits: Any = {"minItems": count, "maxItems": count} if count else {}
        self._asked(key, "strings", required=count is not None, **limits)
        values = self._take(key, list, "a list of strings") or []
        if not all(type(value) is str for value in values):
            raise self.error(key, f"must be a list of strings, not {values!r}")
        return values

    def tables(self, key: str) -> list[Table]:
        """The tables under [[key]]."""
        self._asked(key, "tables")
        values = self._take(key, list, f"an array of tables, each under [[{key}]]") or []
        tables = []
        for number, value in enumerate(values, 1):
            if type(value) is not dict:
                raise self.error(key, f"must be an array of tables, each under [[{key}]]")
            name = value.get("name")
            place = key if self.where == "the file" else f"{self.where}: {key}"
            label = f"{place} {name if type(name) is str else number}"
            tables.append(Table(value, label, (*self._place, key), self._ask))
        return tables

    def done(self) -> None:
        """Raise TopologyError if there is a key that nobody has read."""
        for key in self.data:
            raise TopologyError(f"{self.where}: {key} is not a key that a topology has here")
