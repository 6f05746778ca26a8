# SPDX-License-Identifier: Apache-2.0
"""TC, the traffic control face: qdiscs, chains, filters and actions over rtnetlink."""
