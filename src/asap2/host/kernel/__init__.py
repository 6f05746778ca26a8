# SPDX-License-Identifier: Apache-2.0
"""The kernel's interfaces, one a module: what is read from them, and what setting up changes through them."""
