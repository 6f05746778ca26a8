# SPDX-License-Identifier: Apache-2.0
"""A call in a forked process, to work in other namespaces without entering them oneself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def interrupts_held() -> Iterator[Callable[[], None]]:
    """Hold SIGINT back while a process is forked, which calls what this gives: Ctrl-C then ends it without a word.

    Else it would tell of a KeyboardInterrupt of its own, beside its parent, or have its parent tell.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def let_interrupt() -> None:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    try:
        yield let_interrupt
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class Child:
    """A forked process that makes one call; :meth:`result` waits for what the call returned or raised."""

    def __init__(self, call: Callable[[], Any]) -> None:
        read_end, write_end = os.pipe()
        with interrupts_held() as let_interrupt:
            self.pid = os.fork()
            if not self.pid:
                let_interrupt()
        if self.pid:
            os.close(write_end)
            self._answer = os.fdopen(read_end, "rb")
            return
        try:
            os.close(read_end)
            answer = json.dumps(_outcome(call)).encode()
            with os.fdopen(write_end, "wb") as pipe:
                pipe.write(answer)
        except BrokenPipeError:
            pass
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)

    def result(self) -> Any:
        """What the call returned (as JSON can carry it); OSError as it raised it, RuntimeError for all else,
        KeyboardInterrupt when Ctrl-C ended it."""
        with self._answer:
            answer = self._answer.read()
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if status == -signal.SIGINT:  # a terminal's Ctrl-C reaches both
            raise KeyboardInterrupt
        outcome = json.loads(answer or '{"error": "the process was killed"}')
        if "errno" in outcome:
            raise OSError(outcome["errno"], outcome["text"], outcome["path"])
        if "error" in outcome:
            raise RuntimeError(outcome["error"])
        return outcome["result"]


def _outcome(call: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"result": call()}
    except OSError as error:
        path = None if error.filename is None else str(error.filename)
        return {"errno": error.errno, "text": error.strerror or str(error), "path": path}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
