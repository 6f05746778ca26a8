# SPDX-License-Identifier: Apache-2.0
"""The TC face and the reference eSwitch beside a real kernel's TC software, in a process (user-mode-linux)."""
