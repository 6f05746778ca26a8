# SPDX-License-Identifier: Apache-2.0
"""The live picture: a web page of a lab, a host or a capture, served by :mod:`asap2.view.server`.

The page comes from web/, which ``make setup-view`` builds into ``static``. A browser gets the structure once, and after
that only the counters that have changed (:mod:`asap2.view.stream`).
"""
