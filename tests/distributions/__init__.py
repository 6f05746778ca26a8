# SPDX-License-Identifier: Apache-2.0
"""This project on other releases of Debian, and under their own kernels: ``make test-distributions``."""
