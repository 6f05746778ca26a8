# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import signal
import time

import pytest

from asap2.lab.child import Child


def test_a_result_and_an_oserror_come_back() -> None:
    assert Child(lambda: [1, "two"]).result() == [1, "two"]

    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full")

    with pytest.raises(OSError, match="No space left") as caught:
        Child(fail).result()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/full")


def test_ctrl_c_ends_a_child_without_a_word_and_is_its_parents_too(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(20):  # at whatever moment
        child = Child(lambda: time.sleep(60))
        os.kill(child.pid, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            child.result()
    assert capfd.readouterr() == ("", "")
