# SPDX-License-Identifier: Apache-2.0
"""Nodes that survive: kills of what they consist of, labs that are broken off; campaigns and their short forms."""
