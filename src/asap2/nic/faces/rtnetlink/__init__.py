# SPDX-License-Identifier: Apache-2.0
"""Links, as rtnetlink tells of them."""
