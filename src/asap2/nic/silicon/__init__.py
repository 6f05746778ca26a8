# SPDX-License-Identifier: Apache-2.0
"""The silicon: the eSwitch as one eBPF program, its rules and ports, and the reference that defines what is right.

``eswitch.bpf.c`` (with its headers) is the program; ``reference.py`` and ``packet.py`` specify it. ``pipeline.py`` is
the interface. Below it: ``layout.py`` (pinned maps), ``maps.py`` (their structures), ``masklists.py``, ``actionlists.py``,
``portslots.py`` and ``indices.py`` (what is in them, changed under running packets), ``loader.py`` (libbpf).
"""
