# SPDX-License-Identifier: Apache-2.0
"""The silicon: the eSwitch as one eBPF program, its rules and ports, and the reference that defines what is right.

``eswitch.bpf.c`` (with its headers) is the program; ``reference.py``, ``packet.py`` and ``rewrite.py`` specify it.
``pipeline.py`` is the interface. Below it: ``layout.py`` (pinned maps), ``maps.py`` and ``actioncodes.py`` (what is in
them), ``masklists.py``, ``actionlists.py``, ``encaps.py``, ``portslots.py`` and ``indices.py`` (changed under running
packets), ``loader.py`` (libbpf).
"""
