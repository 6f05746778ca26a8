# SPDX-License-Identifier: Apache-2.0
"""``systemctl`` of a node: it runs Debian's Open vSwitch as systemd's units do, where there is no systemd.

Words and exit statuses are systemctl's; what the units do is in :mod:`asap2.lab.units`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from asap2.lab import units
from asap2.lab.units import BOTH, DATABASE, SWITCH

WANTS = "/etc/systemd/system/multi-user.target.wants"
UNIT_DIRECTORY = "/lib/systemd/system"

ALIASES = {"openvswitch": BOTH}
"""Red Hat's name of the unit."""
UNITS = {BOTH: (DATABASE, SWITCH), DATABASE: (DATABASE,), SWITCH: (DATABASE, SWITCH)}
"""Daemons that each unit needs, in the order of their start."""
OWN = UNITS | {SWITCH: (SWITCH,)}
"""Daemons that each unit is about."""
DESCRIPTIONS = {
    DATABASE: "Open vSwitch Database Unit",
    SWITCH: "Open vSwitch Forwarding Unit",
    BOTH: "Open vSwitch",
}

NOT_RUNNING, NO_SUCH_UNIT = 3, 5
"""Exit statuses (systemctl(1), and the init script actions of the Linux Standard Base)."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the command line."""

    quiet: bool = False
    alone: bool = False
    """--job-mode=ignore-dependencies: nothing happens to other units."""
    properties: tuple[str, ...] = ()
    values_only: bool = False


def main(arguments: list[str]) -> int:
    """Do what ``systemctl ARGUMENTS`` does; the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if arguments[:1] == ["main-exited"]:  # from the node's supervisor, as the next
        units.main_exited(arguments[1], *map(int, arguments[2:]))
        return 0
    if arguments == ["switch-was-refused"]:
        units.switch_was_refused()
        return 0
    options, words, now = _parse(arguments)
    if not words:
        print("asap2: systemctl of a node knows the units of Open vSwitch, and no others", file=sys.stderr)
        return 0
    verb, names = words[0], [word.removesuffix(".service") for word in words[1:]]
    if verb == "daemon-reload":
        return 0
    action = ACTIONS.get(verb)
    if action is None:
        print(f"Unknown command verb {verb}.", file=sys.stderr)
        return 1
    if not names:
        if verb == "reset-failed":
            names = list(units.DAEMONS)
        else:
            print("Too few arguments.", file=sys.stderr)
            return 1
    status = 0
    for given in names:
        name = ALIASES.get(given, given)
        if name not in UNITS:
            status = _unknown(verb, name)
            continue
        status = action(name, options) or status
        if verb in ("enable", "disable") and now:
            status = (start if verb == "enable" else stop)(name, options) or status
    return status


def _parse(arguments: list[str]) -> tuple[Options, list[str], bool]:
    words, properties = [], []
    rest = iter(arguments)
    for word in rest:
        if word in ("-p", "--property"):
            properties += next(rest, "").split(",")
        elif word.startswith("--property="):
            properties += word.partition("=")[2].split(",")
        elif not word.startswith("-"):
            words.append(word)
    options = Options(
        "-q" in arguments or "--quiet" in arguments,
        "--job-mode=ignore-dependencies" in arguments,
        tuple(properties),
        "--value" in arguments,
    )
    return options, words, "--now" in arguments


def _unknown(verb: str, name: str) -> int:
    if verb.startswith("is-"):
        print("inactive" if verb == "is-active" else "")
        return NOT_RUNNING if verb == "is-active" else 1
    if verb == "status":
        print(f"Unit {name}.service could not be found.", file=sys.stderr)
        return 4
    print(f"Failed to {verb} {name}.service: Unit {name}.service not found.", file=sys.stderr)
    return NO_SUCH_UNIT


def _as_job(name: str, work: Callable[[], str]) -> int:
    """Do *work*, which gives what went wrong or nothing, as systemd does a job: it goes on when systemctl is killed."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setsid()
            with units.job():
                said = work()
            if said:
                print(f"Job for {name}.service failed because {said}", file=sys.stderr)
            status = 1 if said else 0
        except OSError as error:
            print(f"Failed to change {name}.service: {error.strerror}", file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _start(name: str, alone: bool) -> str:
    for daemon in OWN[name] if alone else UNITS[name]:
        if said := units.start(daemon):
            return said
    if name == BOTH:
        units.mark(True)
    return ""


def _stop(name: str, alone: bool) -> str:
    daemons = (DATABASE, SWITCH) if name == DATABASE and not alone else OWN[name]
    for daemon in reversed(daemons):
        if said := units.stop(daemon):
            return said
    if not alone:
        units.mark(False)
    return ""


def start(name: str, options: Options) -> int:
    """Start the daemons of unit *name* that do not run."""
    return _as_job(name, lambda: _start(name, options.alone))


def stop(name: str, options: Options) -> int:
    """Stop the daemons of unit *name*; the database takes the switch with it, which requires it."""
    return _as_job(name, lambda: _stop(name, options.alone))


def restart(name: str, options: Options) -> int:
    """Stop, then start, all that runs or belongs to unit *name*."""

    def work() -> str:
        switch_ran = units.pid_of(SWITCH) is not None
        both_active = units.read(units.DIRECTORY, BOTH).state == "active"
        said = _stop(name, options.alone) or _start(name, options.alone)
        if not said and switch_ran and name == DATABASE and not options.alone:
            said = _start(SWITCH, False)
        if not said and both_active:
            units.mark(True)
        return said

    return _as_job(name, work)


def reload(name: str, options: Options) -> int:
    """Run ExecReload= of unit *name*, a restart that keeps Open vSwitch's flows."""
    if not _active(name):
        print(f"Failed to reload {name}.service: Unit {name}.service is not active.", file=sys.stderr)
        return 1
    if name == BOTH:  # it calls systemctl itself
        return subprocess.run([units.RELOAD], stdin=subprocess.DEVNULL, capture_output=True).returncode
    # ReloadPropagatedFrom=
    daemons = (DATABASE, SWITCH) if name == DATABASE and not options.alone else OWN[name]
    return _as_job(name, lambda: next(filter(None, map(units.reload, daemons)), ""))


def _active(name: str) -> bool:
    if name == BOTH and units.read(units.DIRECTORY, BOTH).state == "active":
        return True
    return all(units.pid_of(daemon) is not None for daemon in OWN[name])


def _state(name: str) -> str:
    """ActiveState= of unit *name*."""
    if _active(name):
        return "active"
    state = units.read(units.DIRECTORY, name).state
    return {"auto-restart": "activating", "active": "activating"}.get(state, state)


def is_active(name: str, options: Options) -> int:
    """Tell whether unit *name* runs."""
    state = _state(name)
    if not options.quiet:
        print(state)
    return 0 if state == "active" else NOT_RUNNING


def is_failed(name: str, options: Options) -> int:
    """Tell whether unit *name* has failed."""
    state = _state(name)
    if not options.quiet:
        print(state)
    return 0 if state == "failed" else 1


def is_enabled(name: str, options: Options) -> int:
    """Tell whether unit *name* starts with the machine."""
    enabled = os.path.lexists(_link(name))
    if not options.quiet:
        print("enabled" if enabled else "disabled")
    return 0 if enabled else 1


def _sub_state(name: str, state: str) -> str:
    if state == "active":
        return "running" if name != BOTH else "exited"
    return {"activating": "auto-restart", "inactive": "dead", "failed": "failed"}.get(state, "start")


def status(name: str, _options: Options) -> int:
    """Describe unit *name*."""
    record, state = units.read(units.DIRECTORY, name), _state(name)
    enabled = "enabled" if os.path.lexists(_link(name)) else "disabled"
    words = f"failed (Result: {record.result})" if state == "failed" else f"{state} ({_sub_state(name, state)})"
    if state == "activating" and record.state == "auto-restart":
        words += f" (Result: {record.result})"
    if record.since:
        words += time.strftime(" since %a %Y-%m-%d %H:%M:%S %Z", time.localtime(record.since))
    print(f"{'●' if state == 'active' else '×' if state == 'failed' else '○'} {name}.service - {DESCRIPTIONS[name]}")
    print(f"     Loaded: loaded ({_unit_file(name)}; {enabled})")
    print(f"     Active: {words}")
    for daemon in OWN[name]:
        if (pid := units.pid_of(daemon)) is not None:
            print(f"   Main PID: {pid} ({daemon})")
    return 0 if state == "active" else NOT_RUNNING


def show(name: str, options: Options) -> int:
    """Print properties of unit *name*."""
    record, state = units.read(units.DIRECTORY, name), _state(name)
    known = {
        "Id": f"{name}.service",
        "MainPID": (units.pid_of(name) or 0) if name != BOTH else 0,
        "NRestarts": record.restarts,
        "Result": record.result,
        "Restart": "on-failure" if name != BOTH else "no",
        "ActiveState": state,
        "SubState": _sub_state(name, state),
    }
    for key, value in known.items():
        if not options.properties or key in options.properties:
            print(value if options.values_only else f"{key}={value}")
    return 0


def reset_failed(name: str, _options: Options) -> int:
    """Forget that unit *name* has failed, and how often it was started."""

    def work() -> str:
        for daemon in OWN[name]:
            units.reset(daemon)
        return ""

    return _as_job(name, work)


def enable(name: str, _options: Options) -> int:
    """Have unit *name* start with the machine: the link that systemctl makes."""
    link = _link(name)
    if not os.path.lexists(link):
        os.makedirs(WANTS, exist_ok=True)
        os.symlink(_unit_file(name), link)
        print(f"Created symlink {link} → {_unit_file(name)}.", file=sys.stderr)
    return 0


def disable(name: str, _options: Options) -> int:
    """Undo :func:`enable`."""
    if os.path.lexists(_link(name)):
        os.unlink(_link(name))
        print(f"Removed {_link(name)}.", file=sys.stderr)
    return 0


ACTIONS: dict[str, Callable[[str, Options], int]] = {
    "start": start,
    "stop": stop,
    "restart": restart,
    "reload": reload,
    "force-reload": reload,
    "try-restart": lambda name, options: restart(name, options) if _active(name) else 0,
    "reload-or-restart": lambda name, options: (reload if _active(name) else start)(name, options),
    "status": status,
    "show": show,
    "is-active": is_active,
    "is-failed": is_failed,
    "is-enabled": is_enabled,
    "reset-failed": reset_failed,
    "enable": enable,
    "disable": disable,
}


def _link(name: str) -> str:
    return f"{WANTS}/{name}.service"


def _unit_file(name: str) -> str:
    return f"{UNIT_DIRECTORY}/{name}.service"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
