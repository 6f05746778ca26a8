# SPDX-License-Identifier: Apache-2.0
"""``asap2 bench --suite stateful``: connections that are tracked, and translated, in hardware and in software."""
