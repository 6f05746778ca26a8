#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The command asap2, from Debian's package: a script of sh first, then one of Python. Ctrl-C waits until Python has
# imported what it is to interrupt: in its own start, Python would answer with a traceback.
# fmt: off
"exec" "env" "--block-signal=INT" "/usr/bin/python3" "$0" "$@"
# fmt: on

import sys

from asap2.cli.main import main

sys.exit(main(held=True))
