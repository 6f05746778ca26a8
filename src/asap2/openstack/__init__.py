# SPDX-License-Identifier: Apache-2.0
"""OpenStack on the lab: real services, unmodified, whose servers are guests on VFs of the lab's NICs."""
