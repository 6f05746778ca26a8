# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses to plain data (what JSON and TOML carry) and back, read strictly.

Fields may be str, int, float, bool, a dataclass, ``X | None``, ``tuple[X, ...]`` and ``tuple[tuple[str, str], ...]``;
those of a TypedDict (:func:`checked`) also lists, and enumerations of words.
Field names are keys; a key that no field has, a value of another type and a missing field without a default raise
:class:`RecordError`, whose one sentence says where.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")

_WORDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


class RecordError(ValueError):
    """Data that does not fit its class; the text says where and how."""


def to_data(value: Any) -> Any:
    """*value*, a dataclass or what one may hold, as dicts, lists and scalars."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_data(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [to_data(item) for item in value]
    return value


def from_data(cls: type[T], data: Any, where: str = "") -> T:
    """*data* as an object of the dataclass *cls*; *where* is what errors call the place that it came from."""
    return cls(**_read(_fields(typing.cast(Any, cls)), data, where, cls.__name__))


def checked(kind: type[T], data: Any, where: str = "") -> T:
    """*data*, which fits the TypedDict *kind*; *where* is what errors call the place that it came from."""
    fields = {name: (one, True) for name, one in typing.get_type_hints(kind).items()}
    return typing.cast(T, _read(fields, data, where, kind.__name__))


def _read(fields: dict[str, tuple[Any, bool]], data: Any, where: str, title: str) -> dict[str, Any]:
    """The values of *fields*, with their types and whether each is required, in *data*."""
    if not isinstance(data, dict):
        raise RecordError(f"{where or title} is to be a table, not {_shown(data)}")
    for key in data:
        if key not in fields:
            known = ", ".join(fields)
            raise RecordError(f"unknown key {key!r}{f' in {where}' if where else ''}; known are {known}")
    values = {}
    for name, (kind, required) in fields.items():
        if name in data:
            values[name] = _value(kind, data[name], f"{where}.{name}" if where else name)
        elif required:
            raise RecordError(f"{where or title} has no {name!r}")
    return values


@cache
def _fields(cls: Any) -> dict[str, tuple[Any, bool]]:
    """Each field's type, and whether it must be given."""
    hints = typing.get_type_hints(cls)
    missing = dataclasses.MISSING
    return {
        field.name: (hints[field.name], field.default is missing and field.default_factory is missing)
        for field in dataclasses.fields(cls)
    }


def _value(kind: Any, data: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        if data is None:
            return None
        (kind,) = (one for one in typing.get_args(kind) if one is not type(None))
        return _value(kind, data, where)
    if origin is tuple:
        return _tuple(typing.get_args(kind), data, where)
    if origin is list:
        return list(_tuple((*typing.get_args(kind), ...), data, where))
    if origin is typing.Literal:
        if data in typing.get_args(kind):
            return data
        raise RecordError(f"{where} is to be one of {', '.join(typing.get_args(kind))}, not {_shown(data)}")
    if dataclasses.is_dataclass(kind):
        return from_data(typing.cast(Any, kind), data, where)
    if typing.is_typeddict(kind):
        return checked(kind, data, where)
    if issubclass(kind, enum.StrEnum):
        if data in [one.value for one in kind]:
            return kind(data)
        raise RecordError(f"{where} is to be one of {', '.join(kind)}, not {_shown(data)}")
    if kind is float and type(data) is int:
        return float(data)
    if type(data) is not kind:
        raise RecordError(f"{where} is to be {_WORDS[kind]}, not {_shown(data)}")
    return data


def _tuple(kinds: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        raise RecordError(f"{where} is to be a list, not {_shown(data)}")
    if len(kinds) == 2 and kinds[1] is ...:
        return tuple(_value(kinds[0], item, f"{where}[{place}]") for place, item in enumerate(data))
    if len(kinds) != len(data):
        raise RecordError(f"{where} is to have {len(kinds)} items, not {len(data)}")
    return tuple(_value(kind, item, f"{where}[{place}]") for place, (kind, item) in enumerate(zip(kinds, data)))  # noqa: B905


def _shown(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 40 else f"{text[:37]}..."
