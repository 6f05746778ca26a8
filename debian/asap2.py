#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The command asap2, from Debian's package."""

import sys

from asap2.cli.main import main

sys.exit(main())
