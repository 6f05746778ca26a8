# SPDX-License-Identifier: Apache-2.0
"""Proof by traffic: packets are sent through a VF, and it is seen how many of them the host had to touch."""
