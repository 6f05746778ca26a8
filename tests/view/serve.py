# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.view.serve NODES``: the picture of a lab that is not there."""

from __future__ import annotations

import sys

from asap2.view.access import access
from asap2.view.server import ViewServer, run
from tests.view.synthetic import Synthetic

run(ViewServer(Synthetic(int(sys.argv[1])), access("127.0.0.1")), 0, lambda url: print(url, flush=True))
