# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch's own system tests, unchanged, in a node: ``make test-openvswitch``."""
