# SPDX-License-Identifier: Apache-2.0
"""A WSGI filter for nova's API: who ``noauth2`` let in is the cloud's operator, with an operator's roles.

nova's policies ask for roles, which ``noauth2`` gives to nobody, and its calls to other services need a token. Nova
loads it by its api-paste.ini (PasteDeploy's ``paste.filter_factory``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from asap2.openstack.plan import PROJECT, TOKEN

ROLES = ["admin", "manager", "member", "reader", "service"]

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def filter_factory(_global_conf: dict[str, str], **_local_conf: str) -> Callable[[Application], Application]:
    """The filter, as PasteDeploy asks for it."""

    def wrap(application: Application) -> Application:
        def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            context = environ.get("nova.context")
            if context is not None:
                context.roles = ROLES
                context.project_id = PROJECT
                context.auth_token = context.auth_token or TOKEN
            return application(environ, start_response)

        return call

    return wrap
