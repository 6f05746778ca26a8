# SPDX-License-Identifier: Apache-2.0
"""What the output of a try on another release means."""

from __future__ import annotations

from tests.distributions.__main__ import verdict

SLOW = "186 commands in 685 s, failed\nasap2: offload gains too little over Open vSwitch in user space: TCP 0.9 times\n"
KERNEL = "kernel 6.1.0-50-cloud-amd64, Open vSwitch service active\n"


def test_exit_status_0_is_success_and_the_last_result_is_told() -> None:
    assert verdict(0, False, "186 commands in 95 s, all passed\n2789 passed in 91.54s\n") == (
        True,
        "2789 passed in 91.54s",
    )


def test_an_emulated_machine_may_only_be_slow() -> None:
    green, said = verdict(2, True, KERNEL + SLOW + "make: *** [Makefile:24: demo] Error 1\n")
    assert green
    assert said.startswith("kernel 6.1.0-50-cloud-amd64; every step succeeded (186 commands in 685 s)")
    assert verdict(2, False, SLOW) == (False, SLOW.splitlines()[-1])
    broken = "asap2: the daemon of hv1 did not start\nmake: *** [Makefile:24: demo] Error 1\n"
    assert verdict(2, True, KERNEL + broken)[0] is False


def test_a_machine_that_does_not_end_has_failed() -> None:
    assert verdict(99, True, "") == (False, "exit status 99")
