# SPDX-License-Identifier: Apache-2.0
"""The interfaces by which programs see and change a node's connections: ctnetlink, and files of /proc."""
