# SPDX-License-Identifier: Apache-2.0
"""``asap2 host check``: each item a function of the host's inventory that gives verdicts, with what to do."""
