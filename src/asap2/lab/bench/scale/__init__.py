# SPDX-License-Identifier: Apache-2.0
"""What the software NIC does with many rules, masks and flows, always beside a peer in the same run."""
