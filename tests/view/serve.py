# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.view.serve NODES [FILE]``: the picture of a lab that is not there, with the ways in a file."""

from __future__ import annotations

import sys
from pathlib import Path

from asap2.trace.shown import of_file
from asap2.view.access import access
from asap2.view.server import ViewServer, run
from tests.view.synthetic import Synthetic

packets = of_file(Path(sys.argv[2])) if len(sys.argv) > 2 else None
served = ViewServer(Synthetic(int(sys.argv[1])), access("127.0.0.1"), packets=packets)
run(served, 0, lambda url: print(url, flush=True))
