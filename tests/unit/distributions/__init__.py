# SPDX-License-Identifier: Apache-2.0
"""The verdicts of make test-distributions."""
