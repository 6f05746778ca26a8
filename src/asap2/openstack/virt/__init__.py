# SPDX-License-Identifier: Apache-2.0
"""Nova's virt driver of the lab: guests are namespaces that get a VF each, in place of virtual machines."""
