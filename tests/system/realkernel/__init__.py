# SPDX-License-Identifier: Apache-2.0
"""The reference eSwitch and the TC face beside a real kernel's TC software, which runs as a process (user-mode-linux)."""
