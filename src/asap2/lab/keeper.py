# SPDX-License-Identifier: Apache-2.0
"""Take a lab down when the process that wanted it has ended: ``python -m asap2.lab.keeper ROOT PIDFD``.

It imports little before that, since one runs beside each lab of a test.
"""

import os
import select
import sys

PATIENCE = 600.0
"""Seconds to wait for what the owner still had at work."""


def main(root: str, owner: int) -> None:
    """Wait for the end of the process that the descriptor *owner* (pidfd_open(2)) stands for, and take down what is at
    *root*."""
    select.select([owner], [], [])
    from pathlib import Path

    from asap2.lab.lab import Lab
    from asap2.lab.layout import Layout

    lab = Lab(Layout(Path(root)))
    lab.patience = PATIENCE
    lab.down()


if __name__ == "__main__":
    os.chdir("/")
    main(sys.argv[1], int(sys.argv[2]))
