# SPDX-License-Identifier: Apache-2.0
"""What a service's own code says of settings. A program for the Python that has nova or neutron; needs no asap2.

It reads a question as JSON from standard input and prints the answer as JSON. The question: ``service`` ("nova" or
"neutron"), ``files`` (``path``, ``text``), ``assignments`` (``path``, ``line``, ``section``, ``key``, ``value``: what
was read elsewhere), ``devices`` (as nova's drivers report them, with ``netdev``), ``local``: whether they are this
machine's, so that nova may look at sysfs. Nothing is connected to and nothing changed.

Files are read by oslo.config's parser; options are those that the installed packages list under the entry point
``oslo.config.opts``; device_spec is read by nova.pci.whitelist, and matched by nova.pci.devspec.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import json
import os
import pkgutil
import re
import sys
from typing import Any

LIBRARIES = ("oslo.", "keystonemiddleware", "keystoneauth", "osprofiler", "castellan", "os_brick", "os_vif", "ovsdbapp")
"""Namespaces of options that any service may use, besides its own."""
NOT_LIBRARIES = ("castellan.tests",)
PRIVSEP = re.compile(r"privsep(_\w+)?|vif_plug_\w+|\w+_privileged|\w+_sys_admin")
"""Sections of privsep contexts, which have privsep's options under their own name."""
DYNAMIC = ("mdev_",)
"""Beginnings of sections that nova names after values of other options."""
SPEC_OPTIONS = ("device_spec", "passthrough_whitelist", "pci_passthrough_whitelist")


def entry_points() -> Any:
    """The registered lists of options."""
    found: Any = importlib.metadata.entry_points()
    return found.select(group="oslo.config.opts") if hasattr(found, "select") else found.get("oslo.config.opts", [])


def belongs(entry: Any, service: str) -> bool:
    """Whether a list of options is the service's own, as neutron's ``nova.auth`` is, or a library's."""
    dist = getattr(entry, "dist", None)  # since Python 3.10
    own = dist.metadata["Name"] == service if dist else entry.name == service or entry.name.startswith(service + ".")
    return own or (entry.name.startswith(LIBRARIES) and not entry.name.startswith(NOT_LIBRARIES))


def normal(section: str) -> str:
    """A section's name as oslo.config compares them."""
    return section if section == "DEFAULT" else section.lower()


class Options:
    """The options of a service: by section and name, and the old names of each."""

    def __init__(self, service: str) -> None:
        self.current: dict[str, dict[str, Any]] = {}
        self.old: dict[tuple[str, str], tuple[str, str]] = {}
        self.unlisted: list[str] = []
        for entry in entry_points():
            if not belongs(entry, service):
                continue
            try:
                listed = entry.load()()
            except Exception as error:
                self.unlisted.append(f"{entry.name}: {error}")
                continue
            for group, options in listed:
                self.add(str(getattr(group, "name", group) or "DEFAULT"), options)

    def add(self, group: str, options: Any) -> None:
        """Options of the section *group*."""
        names = self.current.setdefault(normal(group), {})
        for option in options:
            names[option.name] = names[option.dest] = option
            for old in option.deprecated_opts:
                name = old.name or option.dest
                for each in (name, name.replace("-", "_")):
                    self.old[normal(old.group or group), each] = (normal(group), option.dest)

    def add_plugin(self, section: str, plugin: str) -> None:
        """Those of the keystoneauth plugin that the section's auth_type names."""
        try:
            from keystoneauth1 import loading

            options = loading.get_plugin_loader(plugin).get_options()
            self.add(section, [option._to_oslo_opt() for option in options])
        except Exception as error:
            self.unlisted.append(f"[{section}] auth_type {plugin}: {error}")

    def like(self, section: str) -> dict[str, Any] | None:
        """The options of *section*; None when no such section is known."""
        found = self.current.get(section)
        if found is None and PRIVSEP.fullmatch(section):
            return self.current.get("privsep")
        return found


def read(path: str, text: str, parse_errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The assignments in a file, by oslo.config's own parser."""
    from oslo_config import iniparser

    found: list[dict[str, Any]] = []

    class Reader(iniparser.BaseParser):  # type: ignore[misc, unused-ignore]
        section = ""
        began = 0

        def _split_key_value(self, line: str) -> Any:
            self.began = self.lineno
            return super()._split_key_value(line)

        def assignment(self, key: str, value: list[str]) -> None:
            if not self.section:  # as oslo.config's own reader of files has it
                raise iniparser.ParseError("Section must be started before assignment", self.began, key)
            place = {"path": path, "line": self.began, "section": self.section, "key": key}
            found.append({**place, "value": "\n".join(value)})

        def new_section(self, section: str) -> None:
            self.section = section

    try:
        Reader().parse(text.splitlines())
    except iniparser.ParseError as error:
        parse_errors.append({"path": path, "line": error.lineno, "said": error.msg})
    return found


def judged(one: dict[str, Any], options: Options) -> dict[str, Any]:
    """What is to say of an assignment: ``known`` "yes", "old" (``now`` says what instead), "no" or "section" (there is
    no such section), with sections that have the option, and names like it; ``error`` of its value."""
    section, key = normal(one["section"]), one["key"]
    known = options.like(section)
    option = known.get(key) if known else None
    if option is not None:
        answer: dict[str, Any] = {"known": "yes", "multiple": bool(getattr(option, "multi", False))}
        if option.deprecated_for_removal:
            answer["removal"] = " ".join(str(option.deprecated_reason or "").split())
    elif (section, key) in options.old:
        now = options.old[section, key]
        option = options.current[now[0]][now[1]]
        answer = {"known": "old", "now": now, "multiple": bool(getattr(option, "multi", False))}
    elif section.startswith(DYNAMIC):
        return {"known": "yes", "multiple": True}
    else:
        elsewhere = sorted(group for group, names in options.current.items() if key in names)
        return {
            "known": "no" if known else "section",
            "elsewhere": elsewhere,
            "like": difflib.get_close_matches(key, known or (), 1, 0.75),
            "sections_like": [] if known else difflib.get_close_matches(section, options.current, 1, 0.7),
        }
    if "$" not in one["value"] and not one.get("opaque"):
        try:
            option.type(one["value"])
        except ValueError as error:
            answer["error"] = str(error)
    return answer


# ---- nova's own


def spec_keys() -> set[str]:
    """The keys of device_spec that the installed nova's help of the option names."""
    from nova.conf import pci

    option = next(option for option in pci.pci_opts if option.dest == "device_spec")
    return set(re.findall(r"``([a-z_]+)``", option.help))


def pretend(devices: list[dict[str, Any]]) -> None:
    """Let nova's look at sysfs see *devices*, which are another machine's."""
    from nova.pci import utils

    pfs = {one["address"]: one for one in devices if one.get("dev_type") == "type-PF"}
    by_name = {one["netdev"]: one["address"] for one in devices if one.get("netdev")}

    def function(name: str) -> tuple[str | None, bool]:
        address = by_name.get(str(name))
        return address, address in pfs

    utils.is_physical_function = lambda domain, bus, slot, func: f"{domain}:{bus}:{slot}.{func}" in pfs
    utils.get_function_by_ifname = function
    utils.get_pci_ids_by_pci_addr = lambda address: (pfs[address]["vendor_id"], pfs[address]["product_id"])
    utils.get_vf_product_id_by_pf_addr = lambda address: pfs[address].get("vf_product_id", "")


def specs(entries: list[dict[str, Any]], devices: list[dict[str, Any]], local: bool) -> list[dict[str, Any]]:
    """Each entry of each device_spec: nova's refusal, or unknown keys, and the devices that it matches."""
    from nova.pci import whitelist

    if not local:
        pretend(devices)
    known = spec_keys()
    answers = []
    for one in entries:
        answer: dict[str, Any] = {"path": one["path"], "line": one["line"], "text": one["value"]}
        try:
            data = json.loads(one["value"])
        except ValueError:
            data = None
        listed = data if isinstance(data, list) else [data]
        try:
            found = whitelist.Whitelist([one["value"]]).specs
            matched = [[device["address"] for device in devices if spec.match(device)] for spec in found]
        except Exception as error:
            answers.append({**answer, "refusal": str(error)})
            continue
        for place, (values, matches) in enumerate(zip(listed, matched)):  # noqa: B905
            unknown = {key: difflib.get_close_matches(key, known, 1, 0.6) for key in values if key not in known}
            answers.append({**answer, "place": place, "data": values, "unknown": unknown, "matches": matches})
    return answers


def filters() -> list[str]:
    """The scheduler's filters that nova brings."""
    import nova.scheduler.filters as package

    names = []
    for module in pkgutil.iter_modules(package.__path__):
        path = os.path.join(package.__path__[0], f"{module.name}.py")
        with open(path) as file:
            names += re.findall(r"^class ([A-Z]\w*Filter)\(", file.read(), re.M)
    return sorted(names)


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to *question*."""
    service = question["service"]
    errors: list[dict[str, Any]] = []
    entries = list(question["assignments"])
    for file in question["files"]:
        entries += read(file["path"], file["text"], errors)
    options = Options(service)
    for one in entries:
        if one["key"] == "auth_type":
            options.add_plugin(one["section"], one["value"])
    said = [{**one, **judged(one, options)} for one in entries]
    result = {
        "version": importlib.metadata.version(service),
        "parse_errors": errors,
        "entries": said,
        "unlisted": options.unlisted,
    }
    if service == "nova":
        given = [one for one in said if one["key"] in SPEC_OPTIONS and one["known"] in ("yes", "old")]
        result["specs"] = specs(given, question["devices"], question["local"])
        result["filters"] = filters()
    return result


def main() -> None:
    """Answer what standard input asks. What the packages print goes to standard error."""
    question = json.load(sys.stdin)
    output, sys.stdout = sys.stdout, sys.stderr
    json.dump(answer(question), output)


if __name__ == "__main__":
    main()
