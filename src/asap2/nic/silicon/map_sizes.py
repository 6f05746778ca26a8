# SPDX-License-Identifier: Apache-2.0
"""The pinned maps of one pipeline, opened, and how large each is made."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path
from typing import Any

from asap2.nic.silicon import bloom, connection_records, hooks, loader, maps
from asap2.nic.silicon.rulekeys import RuleKeys
from asap2.nic.silicon.timeouts import TimeoutPolicies

OBJECT = Path(__file__).with_name("eswitch.bpf.o")
PROGRAM, ONWARD, KEEP = "eswitch", "onward", "keep"
"""The program of every port, that of the device that upcalls leave by, and what changes connections for user space."""

SHARED = (
    "connections",
    "tuples",
    "sources",
    "expectations",
    "free_connections",
    "tracker",
    "zones",
    "policies",
    "tracker_stats",
    "locks",
    "ct_events",
    "samples",
)
"""The maps that a node's pipeline and those of its NICs have in common: connections, and samples of packets."""

_ANOTHER = "the pipeline in {} was made by another version of this program"
_RULE = struct.Struct("=II")
"""struct rule."""
_COUNT = struct.Struct("=QQQ")
"""struct count, but for its padding."""
_COUNT_SIZE = ctypes.sizeof(maps.CountRecord)
_NOTHING = bytes(_COUNT_SIZE)
_CACHE_ENTRIES = 65536
"""At least so many flows are remembered, by all CPUs together."""
_WAYS = 2
_COUNTERS_SIZE = 64 << 20
_SPARE = 16384
_MASKS = 65536
"""At most so many masks in all lists together."""
_PORTS = 8192
_TUNNELS = 65536
_TRACES = 8192
"""Events that one packet of a differential test may have: copies of copies make many."""


def _power_of_two(number: int) -> int:
    """The largest power of two that is not greater."""
    return 1 << (number.bit_length() - 1)


class Layout:
    """File descriptors and memory of a pipeline pinned in *directory*."""

    def __init__(self, directory: Path) -> None:
        def opened(name: str) -> loader.Map:
            try:
                return loader.Map(loader.pinned(directory / name), name)
            except FileNotFoundError as e:
                raise OSError(errno.EINVAL, _ANOTHER.format(directory)) from e

        self.directory = directory
        self.program = loader.pinned(directory / PROGRAM)
        self.onward = loader.pinned(directory / ONWARD)
        try:
            self.keep = loader.pinned(directory / KEEP)
        except FileNotFoundError as e:
            raise OSError(errno.EINVAL, _ANOTHER.format(directory)) from e
        self.devs = opened("devs")
        self.mask_list_of = opened("mask_list_of")
        self.keys = RuleKeys(opened("keys"), opened("stateful_keys"))
        self.stats = opened("stats")
        self._grace = opened("grace")
        self._arrays = {
            name: opened(name)
            for name in (
                "ports",
                "near",
                "mask_lists",
                "nodes",
                "bloom",
                "rules",
                "entries",
                "counts",
                "upcalls",
                "encaps",
                "config",
                "traces",
                "resumes",
                "handed_in",
                "meters",
                "connections",
                "tracker",
                "zones",
                "policies",
                "keeping",
            )
        }
        self.tuples = opened("tuples")
        self.sources = opened("sources")
        self.expectations = opened("expectations")
        self.free_connections = opened("free_connections")
        self.tracker_stats = opened("tracker_stats")
        self.ct_events = opened("ct_events")
        self.samples = opened("samples")
        sizes = (
            *(self.keys.fits(), self.stats.value_size, self._arrays["ports"].value_size),
            *(self._arrays["connections"].value_size, self.tracker_stats.value_size),
        )
        if sizes != (
            *(True, ctypes.sizeof(maps.StatsRecord), ctypes.sizeof(maps.PortRecord)),
            *(ctypes.sizeof(connection_records.ConnectionRecord), ctypes.sizeof(connection_records.TrackerStatsRecord)),
        ):
            raise OSError(errno.EINVAL, _ANOTHER.format(directory))
        self.ports = self._array("ports", maps.PortRecord)
        self.near = self._arrays["near"].memory()
        self.mask_lists = self._array("mask_lists", maps.MaskListRecord)
        self.nodes = self._array("nodes", maps.NodeRecord)
        self.bloom = self._array("bloom", ctypes.c_uint64)
        self.rules = self._array("rules", maps.RuleRecord)
        self.entries = self._array("entries", maps.EntryRecord)
        self.counts = self._array("counts", maps.CountRecord)
        self.upcalls = self._array("upcalls", maps.UpcallRecord)
        self.encaps = self._array("encaps", maps.EncapRecord)
        self.traces = self._array("traces", maps.TraceRecord)
        self.resumes = self._array("resumes", maps.ResumeRecord)
        self.meters = self._array("meters", maps.MeterRecord)
        self.continuation: maps.ContinuationRecord = self._array("handed_in", maps.ContinuationRecord)[0]
        self.config: maps.ConfigRecord = self._array("config", maps.ConfigRecord)[0]
        self.connections = self._array("connections", connection_records.ConnectionRecord)
        self.tracker: connection_records.TrackerRecord = self._array("tracker", connection_records.TrackerRecord)[0]
        self.zones = self._array("zones", connection_records.ZoneRecord)
        self.policies = self._array("policies", connection_records.PolicyRecord)
        self.timeouts = TimeoutPolicies(self.policies)
        self.keeping: connection_records.KeepingRecord = self._array("keeping", connection_records.KeepingRecord)[0]
        self._rules_memory = self._arrays["rules"].memory()
        self._counts_memory = self._arrays["counts"].memory()
        self._count_step = len(self.rules) * _COUNT_SIZE
        self._counts_end = self.config.shards * self._count_step

    def _array(self, name: str, record: type[Any]) -> Any:
        return self._arrays[name].mapped(record)

    def new_rule(self, handle: int, node: int, actions: int) -> None:
        """Write the record of a rule that has counted nothing yet."""
        _RULE.pack_into(self._rules_memory, handle * _RULE.size, node, actions)
        for at in range(handle * _COUNT_SIZE, self._counts_end, self._count_step):
            self._counts_memory[at : at + _COUNT_SIZE] = _NOTHING

    def counted(self, handle: int) -> tuple[int, int, int]:
        """Packets, bytes, and time of last use (ns) of a rule, all shards together."""
        packets = octets = used = 0
        for at in range(handle * _COUNT_SIZE, self._counts_end, self._count_step):
            more_packets, more_octets, last = _COUNT.unpack_from(self._counts_memory, at)
            packets += more_packets
            octets += more_octets
            if last > used:
                used = last
        return packets, octets, used

    def set_called(self, program: int) -> None:
        """Have the program of the device that upcalls leave by call *program*. OSError."""
        called = loader.pinned(self.directory / "programs")
        try:
            hooks.put_program(called, program)
        finally:
            os.close(called)

    def grace_period(self) -> None:
        """Wait until every program that runs now has ended.

        The kernel waits so before an update of a map of maps returns (kernel/bpf/syscall.c, maybe_wait_bpf_programs).
        """
        cell = loader.new_cell()
        try:
            self._grace.update(bytes(4), maps.word(cell))
        finally:
            os.close(cell)

    def next_generation(self) -> int:
        """A number that no list of masks has had."""
        self.config.generation += 1
        return self.config.generation

    def close(self) -> None:
        """Close the file descriptors. What is pinned works on."""
        every = [
            *(self.devs, self.mask_list_of, *self.keys.maps, self.stats, self._grace, *self._arrays.values()),
            *(self.tuples, self.sources, self.expectations, self.free_connections),
            *(self.tracker_stats, self.ct_events, self.samples),
        ]
        for fd in (self.program, self.onward, self.keep, *(m.fd for m in every)):
            os.close(fd)


_NOT_PREALLOCATED = ("tuples", "sources", "stateful_keys")
"""Hash maps that take memory for an entry when it is inserted, which may fail while memory is short. A pipeline that
traces preallocates them: what a packet does must not depend on other programs' memory."""
_EXPECTATIONS = 4096
"""nf_conntrack_expect_max is a multiple of the hash table's size; that many are waited for at a time."""


def create(
    directory: Path,
    max_rules: int,
    tracing: bool,
    cache_entries: int | None,
    max_connections: int,
    connections_of: Path | None,
) -> None:
    """Load the program with room for *max_rules* rules and pin everything in *directory*, a directory of a bpffs.

    Its connections are those of the pipeline pinned in *connections_of*, or else its own, *max_connections* at most.
    """
    cpus = loader.possible_cpus()
    # Indices rest for a while after use, so there are more than can be in use.
    rules = max_rules + min(max_rules // 4, _SPARE) + 1024
    masks = min(max_rules, _MASKS)
    # A set of counters for each CPU where that is not too much memory, else CPUs share them with atomic additions.
    affordable = max(1, _COUNTERS_SIZE // (rules * ctypes.sizeof(maps.CountRecord)))
    shards = min(1 << (cpus - 1).bit_length(), _power_of_two(affordable))
    # As many entries as rules, each of one line; half as many of two lines, for IPv6 and in tunnels; and as many
    # as those for rules on tracked connections. A note on a packet of a connection has two lines.
    cached = cache_entries or max(64, _power_of_two(max(_CACHE_ENTRIES, max_rules) // cpus))
    buckets, wide_buckets = max(1, cached // _WAYS), max(1, cached // 2 // _WAYS)
    words = bloom.words_for(max_rules)
    stateful_buckets, notes = wide_buckets, max(1, cached // 4)
    constants = maps.Constants(
        rules, shards, cpus > shards, cpus, buckets, wide_buckets, stateful_buckets, words, notes, tracing
    )
    loader.load(
        OBJECT,
        directory,
        {
            "devs": _PORTS,
            "mask_list_of": max(1024, masks // 2),
            "keys": max_rules,
            "stateful_keys": max_rules,
            "bloom": words,
            "cache": cpus * buckets,
            "wide_cache": cpus * wide_buckets,
            "stateful_cache": cpus * stateful_buckets,
            "notes": cpus * notes,
            "stats": None,
            "ports": _PORTS,
            "near": None,
            "mask_lists": max(1024, masks // 2) + 1024,
            "nodes": masks + masks // 2 + 1024,
            "rules": rules,
            "entries": max_rules + masks + 1024,
            "counts": rules * shards,
            "upcalls": None,
            "encaps": min(max_rules, _TUNNELS) + 1024,
            "masked": None,
            "outer": None,
            "config": None,
            "traces": _TRACES if tracing else 1,
            "resumes": None,
            "handed_in": None,
            "meters": None,
            "copied": None,
            "ways": None,
            "programs": None,
            "grace": None,
            "connections": max_connections + 1,
            "tuples": 2 * max_connections,
            "sources": max_connections,
            "expectations": _EXPECTATIONS,
            "free_connections": max_connections,
            "tracker": None,
            "zones": None,
            "policies": None,
            "tracker_stats": None,
            "locks": None,
            "ct_events": None,
            "samples": None,
            "flights": None,
            "expressed": None,
            "keeping": None,
        },
        (PROGRAM, ONWARD, KEEP),
        constants,
        {name: connections_of / name for name in SHARED} if connections_of else None,
        _NOT_PREALLOCATED if tracing else (),
    )
    layout = Layout(directory)
    layout.config.max_rules, layout.config.shards = max_rules, shards
    if connections_of is None:
        layout.tracker.max, layout.tracker.next = max_connections, 1
        layout.tracker.loose, layout.tracker.max_retrans, layout.tracker.checksum = 1, 3, 1
        for policy, timeouts in connection_records.TIMEOUTS.items():
            layout.policies[policy].seconds[: len(timeouts)] = list(timeouts)
    layout.close()
