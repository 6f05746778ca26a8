# SPDX-License-Identifier: Apache-2.0
"""A lab for suites in the manner of ``unittest``, as those of os-vif and neutron are."""

from __future__ import annotations

import unittest
from typing import ClassVar

from asap2.testing.labs import Lab, lab
from asap2.testing.sources import Source


class LabTestCase(unittest.TestCase):
    """Has the lab ``self.lab`` for all tests of a class, brought up from :attr:`topology` before the first of them.

    It may stand before another base class: ``class TestPlug(LabTestCase, base.TestCase)``.
    """

    topology: ClassVar[Source] = "one-node"
    lab: ClassVar[Lab]

    @classmethod
    def setUpClass(cls) -> None:
        """Bring the lab up; it is taken down after the last test, and when a later part of this fails."""
        super().setUpClass()
        cls.lab = cls.enterClassContext(lab(cls.topology))
