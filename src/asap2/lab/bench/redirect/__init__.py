# SPDX-License-Identifier: Apache-2.0
"""What it costs a program that its requests are redirected to the node's daemon."""
