# SPDX-License-Identifier: Apache-2.0
"""The generic netlink family psample: packets that were sampled, to whoever listens."""
