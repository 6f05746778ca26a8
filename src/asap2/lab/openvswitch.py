# SPDX-License-Identifier: Apache-2.0
"""``systemctl`` of a node: it runs Debian's Open vSwitch as systemd's units do, where there is no systemd.

It does what ExecStart= and ExecStop= say in the units ovsdb-server, ovs-vswitchd and openvswitch-switch of Debian's
package openvswitch-switch. In place of Restart=on-failure, Open vSwitch's own monitor process starts a daemon anew that
crashed. Words and exit statuses are systemctl's.
"""

from __future__ import annotations

import os
import subprocess
import sys

OVS_CTL = "/usr/share/openvswitch/scripts/ovs-ctl"
RUN_DIRECTORY = "/var/run/openvswitch"
WANTS = "/etc/systemd/system/multi-user.target.wants"
UNIT_DIRECTORY = "/lib/systemd/system"

DATABASE, SWITCH = "ovsdb-server", "ovs-vswitchd"
UNITS = {
    "openvswitch-switch": (DATABASE, SWITCH),
    "openvswitch": (DATABASE, SWITCH),
    DATABASE: (DATABASE,),
    SWITCH: (DATABASE, SWITCH),
}
"""Daemons that each unit needs, in the order of their start. Red Hat calls the first unit ``openvswitch``."""
OWN = UNITS | {SWITCH: (SWITCH,)}
"""Daemons that each unit stops."""
DESCRIPTIONS = {DATABASE: "Open vSwitch Database Unit", SWITCH: "Open vSwitch Forwarding Unit"}

NOT_RUNNING, NO_SUCH_UNIT = 3, 5
"""Exit statuses (systemctl(1), and the init script actions of the Linux Standard Base)."""

START = {
    DATABASE: ("--no-ovs-vswitchd", "--system-id=random", "--no-record-hostname", "start"),
    SWITCH: ("--no-ovsdb-server", "--system-id=random", "--no-record-hostname", "start"),
}
STOP = {DATABASE: ("--no-ovs-vswitchd", "stop"), SWITCH: ("--no-ovsdb-server", "stop")}


def main(arguments: list[str]) -> int:
    """Do what ``systemctl ARGUMENTS`` does; the exit status."""
    quiet = "-q" in arguments or "--quiet" in arguments
    words = [word for word in arguments if not word.startswith("-")]
    if not words:
        print("asap2: systemctl of a node knows the units of Open vSwitch, and no others", file=sys.stderr)
        return 0
    verb, names = words[0], [word.removesuffix(".service") for word in words[1:]]
    if verb in ("daemon-reload", "reset-failed"):
        return 0
    action = ACTIONS.get(verb)
    if action is None:
        print(f"Unknown command verb {verb}.", file=sys.stderr)
        return 1
    if not names:
        print("Too few arguments.", file=sys.stderr)
        return 1
    status = 0
    for name in names:
        if name not in UNITS:
            status = _unknown(verb, name)
            continue
        status = action(name, quiet) or status
        if verb in ("enable", "disable") and "--now" in arguments:
            status = (start if verb == "enable" else stop)(name, quiet) or status
    return status


def _unknown(verb: str, name: str) -> int:
    if verb.startswith("is-"):
        print("inactive" if verb == "is-active" else "")
        return NOT_RUNNING if verb == "is-active" else 1
    if verb == "status":
        print(f"Unit {name}.service could not be found.", file=sys.stderr)
        return 4
    print(f"Failed to {verb} {name}.service: Unit {name}.service not found.", file=sys.stderr)
    return NO_SUCH_UNIT


def start(name: str, _quiet: bool = False) -> int:
    """Start the daemons of unit *name* that do not run."""
    for daemon in UNITS[name]:
        if pid_of(daemon) is None and _ovs_ctl(name, *START[daemon]):
            return 1
    return 0


def stop(name: str, _quiet: bool = False) -> int:
    """Stop the daemons of unit *name*; the database takes the switch with it, which requires it."""
    daemons = (DATABASE, SWITCH) if name == DATABASE else OWN[name]
    for daemon in reversed(daemons):
        if pid_of(daemon) is not None and _ovs_ctl(name, *STOP[daemon]):
            return 1
    return 0


def restart(name: str, quiet: bool = False) -> int:
    """Stop, then start, all that runs or belongs to unit *name*."""
    switch_ran = pid_of(SWITCH) is not None
    status = stop(name, quiet) or start(name, quiet)
    if not status and switch_ran and name == DATABASE:
        status = start(SWITCH, quiet)
    return status


def is_active(name: str, quiet: bool) -> int:
    """Tell whether unit *name* runs."""
    active = all(pid_of(daemon) is not None for daemon in OWN[name])
    if not quiet:
        print("active" if active else "inactive")
    return 0 if active else NOT_RUNNING


def is_enabled(name: str, quiet: bool) -> int:
    """Tell whether unit *name* starts with the machine."""
    enabled = os.path.lexists(_link(name))
    if not quiet:
        print("enabled" if enabled else "disabled")
    return 0 if enabled else 1


def status(name: str, _quiet: bool) -> int:
    """Describe unit *name*."""
    running = {daemon: pid_of(daemon) for daemon in OWN[name]}
    active = all(pid is not None for pid in running.values())
    state = "active (running)" if active else "inactive (dead)"
    enabled = "enabled" if os.path.lexists(_link(name)) else "disabled"
    print(f"{'●' if active else '○'} {name}.service - {DESCRIPTIONS.get(name, 'Open vSwitch')}")
    print(f"     Loaded: loaded ({_unit_file(name)}; {enabled})")
    print(f"     Active: {state}")
    for daemon, pid in running.items():
        if pid is not None:
            print(f"   Main PID: {pid} ({daemon})")
    return 0 if active else NOT_RUNNING


def enable(name: str, _quiet: bool) -> int:
    """Have unit *name* start with the machine: the link that systemctl makes."""
    link = _link(name)
    if not os.path.lexists(link):
        os.makedirs(WANTS, exist_ok=True)
        os.symlink(_unit_file(name), link)
        print(f"Created symlink {link} → {_unit_file(name)}.", file=sys.stderr)
    return 0


def disable(name: str, _quiet: bool) -> int:
    """Undo :func:`enable`."""
    if os.path.lexists(_link(name)):
        os.unlink(_link(name))
        print(f"Removed {_link(name)}.", file=sys.stderr)
    return 0


ACTIONS = {
    "start": start,
    "stop": stop,
    "restart": restart,
    "reload": restart,
    "force-reload": restart,
    "try-restart": lambda name, quiet: restart(name, quiet) if not is_active(name, True) else 0,
    "reload-or-restart": restart,
    "status": status,
    "is-active": is_active,
    "is-enabled": is_enabled,
    "enable": enable,
    "disable": disable,
}


def pid_of(daemon: str) -> int | None:
    """The process id of *daemon* while it runs, from its pidfile."""
    try:
        with open(f"{RUN_DIRECTORY}/{daemon}.pid") as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/comm") as file:
            return pid if file.read().strip() == daemon else None
    except (OSError, ValueError):
        return None


def _ovs_ctl(name: str, *arguments: str) -> int:
    """Run ovs-ctl; its words are shown only when it fails, as systemctl sends them to the journal."""
    done = subprocess.run([OVS_CTL, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        print(f"Job for {name}.service failed: {' '.join((done.stdout + done.stderr).split())}", file=sys.stderr)
    return done.returncode


def _link(name: str) -> str:
    return f"{WANTS}/{'openvswitch-switch' if name == 'openvswitch' else name}.service"


def _unit_file(name: str) -> str:
    return f"{UNIT_DIRECTORY}/{'openvswitch-switch' if name == 'openvswitch' else name}.service"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
