# SPDX-License-Identifier: Apache-2.0
"""The filter of nova's API, and what the demo reads out of flows."""

from __future__ import annotations

from typing import Any

from asap2.openstack.demo_page import flows_between, packets
from asap2.openstack.operator import filter_factory
from asap2.openstack.plan import PROJECT, TOKEN
from asap2.openstack.services import Processes, Service


class Context:
    """As nova's request context."""

    roles: list[str] = []
    project_id = "None"
    auth_token: str | None = None


def seen_by_nova(environ: dict[str, Any]) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []

    def application(environ: dict[str, Any], _start: Any) -> list[bytes]:
        seen.append(environ)
        return []

    filter_factory({})(application)(environ, lambda *_: None)
    return seen[0]


def test_who_was_let_in_is_an_operator() -> None:
    context = seen_by_nova({"nova.context": Context()})["nova.context"]
    assert "admin" in context.roles
    assert (context.project_id, context.auth_token) == (PROJECT, TOKEN)


def test_who_was_not_let_in_is_passed_on_as_he_is() -> None:
    assert seen_by_nova({"other": 1}) == {"other": 1}


SENT = (
    "in_port(eth3),eth(src=fa:16:3e:00:00:01,dst=fa:16:3e:00:00:02),eth_type(0x0800), packets:19, bytes:1862, used:0.5s"
)
CAME = "in_port(3),eth(src=fa:16:3e:00:00:02,dst=fa:16:3e:00:00:01),eth_type(0x8100),encap(eth_type(0x0806)), packets:1"


def test_only_ipv4_flows_of_one_direction_count() -> None:
    output = f"{SENT}\n{CAME}\n"
    assert flows_between(output, "fa:16:3e:00:00:01", "fa:16:3e:00:00:02") == [SENT]
    assert flows_between(output, "fa:16:3e:00:00:02", "fa:16:3e:00:00:01") == []
    assert packets(SENT) == 19


def test_why_a_service_ended_is_its_last_error(tmp_path: Any) -> None:
    processes = Processes(tmp_path)
    service = Service("nova-api", "controller", "controller", ("nova-api",))
    assert processes.last_words(service) == "it said nothing"
    log = processes.log(service)
    log.parent.mkdir(parents=True)
    log.write_text("Traceback\n\nlast line\n")
    assert processes.last_words(service) == "last line"
    log.with_suffix(".log").write_text(
        "2026-11-22 1 INFO nova up\n2026-11-22 1 ERROR nova no such host\n2026 1 INFO x y\n"
    )
    assert processes.last_words(service) == "nova no such host"
