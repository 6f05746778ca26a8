# SPDX-License-Identifier: Apache-2.0
"""``killed.py N setup|undo``: sets a node up, or undoes it, and kills itself (SIGKILL) once N steps are begun.

With "before" it does so when the Nth step begins; with "after", when it is done.
"""

from __future__ import annotations

import os
import signal
import sys

from asap2.host.setup.hands import Hands
from asap2.host.setup.run import Planned, setup, undo
from asap2.host.setup.steps import Step
from asap2.host.setup.wanted import Nic, Wanted

WANTED = Wanted((Nic("enp3s0f0", vfs=2, bridge="br-int", representors=True),))


class Killer:
    """An observer that kills the process at a step."""

    def __init__(self, number: int, when: str) -> None:
        self.left = number
        self.when = when

    def planned(self, planned: Planned, _back: bool) -> None:
        """Tell how many steps there are."""
        print(len(planned.steps), flush=True)

    def begin(self, _step: Step) -> None:
        """A step begins."""
        self.left -= 1
        if self.left == 0 and self.when == "before":
            os.kill(os.getpid(), signal.SIGKILL)

    def done(self, _step: Step) -> None:
        """A step is done."""
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def failed(self, step: Step, why: str) -> None:
        """A step failed."""
        print(step, why)


if __name__ == "__main__":
    killer = Killer(int(sys.argv[1]), sys.argv[3])
    with Hands() as hands:
        if sys.argv[2] == "setup":
            setup(WANTED, hands, killer)
        else:
            undo(hands, killer)
