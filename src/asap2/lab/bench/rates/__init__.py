# SPDX-License-Identifier: Apache-2.0
"""How exactly rates are kept: what is asked for, and what comes through."""
