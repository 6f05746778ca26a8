# SPDX-License-Identifier: Apache-2.0
"""What five paths between two guests of one machine carry and cost, measured in turns in one run."""
