# SPDX-License-Identifier: Apache-2.0
"""What the documentation of all modules has in common."""

from __future__ import annotations


class ModuleDocFragment:
    """The option ``program``."""

    DOCUMENTATION = r"""
options:
  program:
    description:
      - The program C(asap2) on the host, a path or a name to be found in C(PATH).
    type: str
    default: asap2
requirements:
  - asap2 on the host, of this collection's version
  - root on the host (C(become))
author:
  - The asap2 developers (@asap2)
"""
