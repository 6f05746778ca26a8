# SPDX-License-Identifier: Apache-2.0
"""``asap2 top``: ports and flows with their rates, and what of them is in hardware, on a terminal as it happens.

``watch.py`` takes snapshots of :mod:`asap2.live` and makes rates of them. ``rows.py`` makes rows of these,
``columns.py`` fits their columns into a line, ``plain.py`` prints them, and ``app.py`` is the program on a terminal.
"""
