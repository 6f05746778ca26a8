# SPDX-License-Identifier: Apache-2.0
"""Attribute tables, one module for each family of messages; names are the kernel's, without prefix, in lower case."""
