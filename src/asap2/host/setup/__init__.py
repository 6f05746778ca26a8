# SPDX-License-Identifier: Apache-2.0
"""``asap2 host setup``, ``undo`` and ``persist``: a plan, a function of what is and what is wanted, and its steps."""
