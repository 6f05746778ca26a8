# SPDX-License-Identifier: Apache-2.0
"""``asap2 openstack config --check``: settings that are there already, judged by nova and neutron themselves."""
