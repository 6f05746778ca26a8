# SPDX-License-Identifier: Apache-2.0
"""A separate process for work in another network namespace: ``python -m asap2.host.verify.agent JSON``.

It prints one line of JSON: what was found, or ``{"error": "a sentence"}``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from asap2.errors import Asap2Error
from asap2.host.kernel import namespaces
from asap2.host.verify import traffic


def command(request: dict[str, Any]) -> list[str]:
    """The command line that carries out *request*."""
    return [sys.executable, "-m", "asap2.host.verify.agent", json.dumps(request)]


def ask(request: dict[str, Any], timeout: float = 60) -> Any:
    """The agent's answer; raises Asap2Error with its sentence if it fails."""
    try:
        done = subprocess.run(
            command(request), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, process_group=0
        )
    except subprocess.TimeoutExpired:
        raise Asap2Error("the traffic did not come to an end") from None
    try:
        answer = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise Asap2Error(f"the sender failed: {' '.join(done.stderr.split())[-200:]}") from None
    if isinstance(answer, dict) and "error" in answer:
        raise Asap2Error(answer["error"])
    return answer


@contextlib.contextmanager
def serving(netns: str | None, port: int) -> Iterator[None]:
    """Echo UDP and TCP at *port* in a namespace (None: this one) while the context is active."""
    request = {"do": "serve", "netns": netns, "port": port, "seconds": 3600}
    server = subprocess.Popen(  # in a group of its own: Ctrl-C is for this process, which ends it
        command(request), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, process_group=0
    )
    try:
        assert server.stdout is not None
        server.stdout.readline()  # it is ready
        yield
    finally:
        server.kill()
        server.communicate()


def main(request: dict[str, Any]) -> Any:
    """Carry out the request on the command line."""
    if request["do"] == "find":
        return namespaces.find(request["function"], request["paths"])
    if request.get("netns"):
        namespaces.enter(request["netns"])
    if request["do"] == "serve":
        traffic.serve(request["port"], request["seconds"], lambda: print("{}", flush=True))
        return None
    kind = traffic.KINDS[request["protocol"]]
    return dataclasses.asdict(kind(request["peer"], request["count"], request["device"], request["port"]))


if __name__ == "__main__":
    try:
        print(json.dumps(main(json.loads(sys.argv[1]))), flush=True)
    except (traffic.TrafficError, Asap2Error) as error:
        print(json.dumps({"error": str(error)}))
    except OSError as error:
        where = error.filename or json.loads(sys.argv[1]).get("peer", "the traffic")
        print(json.dumps({"error": f"{where}: {error.strerror or error or type(error).__name__}"}))
    except KeyboardInterrupt:
        sys.exit(130)
