# SPDX-License-Identifier: Apache-2.0
"""A call made in a forked process: the way to work in other namespaces and stay out of them."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any


class Child:
    """A forked process that makes one call; :meth:`result` waits for what the call returned or raised."""

    def __init__(self, call: Callable[[], Any]) -> None:
        read_end, write_end = os.pipe()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self.pid = os.fork()
        if self.pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            os.close(write_end)
            self._answer = os.fdopen(read_end, "rb")
            return
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word: its parent says something
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
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
        """What the call returned (as JSON can carry it); OSError as it raised it, RuntimeError for all else."""
        with self._answer:
            answer = self._answer.read()
        os.waitpid(self.pid, 0)
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
