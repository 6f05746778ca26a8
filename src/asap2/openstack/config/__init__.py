# SPDX-License-Identifier: Apache-2.0
"""``asap2 openstack config``: OpenStack's settings for hardware offload, made from a host's NICs, and checked."""
