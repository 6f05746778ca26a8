# SPDX-License-Identifier: Apache-2.0
"""Plain data as TOML (TOML 1.0), which Python can read and not write."""

from __future__ import annotations

import json
from typing import Any


def value(data: Any) -> str:
    """A string, number, boolean or list of them."""
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, (int, float)):
        return repr(data)
    if isinstance(data, str):
        return json.dumps(data, ensure_ascii=False).replace("\x7f", "\\u007f")  # a basic string has JSON's escapes
    if isinstance(data, list):
        return f"[{', '.join(map(value, data))}]"
    raise TypeError(f"TOML has no {type(data).__name__}")


def tables(data: dict[str, Any], above: str = "") -> str:
    """*data* as tables; keys whose value is None are left out. Keys are to be bare ones (letters, digits, ``_-``)."""
    known = {key: one for key, one in data.items() if one is not None}
    lines = [f"{key} = {value(one)}\n" for key, one in known.items() if not _is_table(one)]
    for key, one in known.items():
        name = f"{above}{key}"
        if isinstance(one, dict):
            lines.append(f"[{name}]\n{tables(one, f'{name}.')}")
        elif _is_table(one):
            lines += [f"[[{name}]]\n{tables(each, f'{name}.')}" for each in one]
    return "".join(lines)


def _is_table(data: Any) -> bool:
    return isinstance(data, dict) or (isinstance(data, list) and bool(data) and isinstance(data[0], dict))
