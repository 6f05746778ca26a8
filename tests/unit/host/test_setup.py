# SPDX-License-Identifier: Apache-2.0
"""Setting up and undoing on a model host: from any state, killed anywhere, failing anywhere, both ways reach their
end."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asap2.host.inventory import Host, Vf
from asap2.host.setup import journal as journals
from asap2.host.setup.restore import differences
from asap2.host.setup.run import FailedError, Planned, prepare, prepare_undo, setup, undo
from asap2.host.setup.steps import RestartSwitch, SetEswitch, SetVfs, Step, title
from asap2.host.setup.wanted import Nic, Switch, VfWanted, Wanted
from tests.unit.host import machine
from tests.unit.host.machine import DRIVER, Device, Function, Model


class Quiet:
    """An observer that keeps what was done, and maybe kills: raises after so many events."""

    def __init__(self, kill_after: int = 0) -> None:
        self.steps: list[Step] = []
        self.events = 0
        self.kill_after = kill_after

    def planned(self, _planned: Planned, _back: bool) -> None:
        """Nothing."""

    def begin(self, _step: Step) -> None:
        """A place to be killed at, after the journal was written and before the step."""
        self._event()

    def done(self, step: Step) -> None:
        """Another."""
        self.steps.append(step)
        self._event()

    def failed(self, _step: Step, _why: str) -> None:
        """Nothing."""

    def _event(self) -> None:
        self.events += 1
        if self.events == self.kill_after:
            raise KeyboardInterrupt


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "asap2" / "undo.json"


def nic(address: str = "0000:03:00.0", vfs: int = 0, mode: str = "legacy", name: str = "enp3s0f0") -> machine.Nic:
    """A NIC of the model with VFs that are bound."""
    made = machine.Nic(address, Device(name))
    model = Model([made])
    model._set_vfs(made, vfs)
    if mode == "switchdev":
        made.mode = mode
        for one in made.vfs:
            model._represent(made, one)
    return made


def wanted(vfs: int = 4, **more: object) -> Wanted:
    """The usual wish: VFs, and everything in br-int."""
    return Wanted((Nic("enp3s0f0", vfs=vfs, bridge="br-int", representors=True, **more),))  # type: ignore[arg-type]


def shape(model: Model) -> object:
    """What undoing is to bring back."""
    return copy.deepcopy(
        (
            [(one.mode, one.encap, one.steering, one.uplink, one.vfs) for one in model.nics],
            model.options,
            {name: sorted(ports) for name, ports in model.bridges.items()},
            model.qdiscs,
            model.others,
            set() if model.in_force.get("hw-offload") == "true" else model.filters,  # flows come and go
        )
    )


def test_a_fresh_host_is_set_up_in_the_order_of_the_page(path: Path) -> None:
    model, seen = Model([nic()]), Quiet()
    setup(wanted(), model, seen, path=path)
    kinds = [type(step).__name__ for step in seen.steps]
    assert kinds == [
        "SetVfs",
        "SetDrivers",
        "SetEswitch",
        "SetPorts",
        "SetDrivers",
        "SetPorts",
        "SetOption",
        "RestartSwitch",
        "SetBridge",
        "AddPorts",
    ]
    assert model.bridges == {"br-int": ["enp3s0f0", "eth0", "eth1", "eth2", "eth3"]}
    assert title(seen.steps[5]) == "eth0 and 3 more: hw-tc-offload on, up"
    assert seen.steps[9].commands[1] == "ovs-vsctl --may-exist add-port br-int eth0"
    assert all(one.own is not None for one in model.nics[0].vfs)


def test_the_other_order_makes_vfs_after_the_mode(path: Path) -> None:
    model, seen = Model([nic()], no_vfs_while_switching=True), Quiet()
    setup(wanted(order="switchdev-first"), model, seen, path=path)
    kinds = [type(step) for step in seen.steps]
    assert kinds.index(SetEswitch) < kinds.index(SetVfs)
    assert len(model.nics[0].vfs) == 4


def test_a_driver_that_refuses_the_one_order_is_tried_with_the_other(path: Path) -> None:
    model = Model([nic()], no_vfs_while_switching=True)
    setup(wanted(), model, Quiet(), path=path)
    assert model.nics[0].mode == "switchdev"
    assert len(model.nics[0].vfs) == 4


def test_an_order_that_was_said_is_not_changed(path: Path) -> None:
    model = Model([nic()], no_vfs_while_switching=True)
    before = shape(model)
    with pytest.raises(FailedError, match=r"Operation not supported; everything is as it was before$"):
        setup(wanted(order="vfs-first"), model, Quiet(), path=path)
    assert shape(model) == before
    assert not path.exists()


def test_setting_up_again_does_nothing(path: Path) -> None:
    model = Model([nic()])
    setup(wanted(), model, Quiet(), path=path)
    before = shape(model)
    assert prepare(wanted(), model, path=path) == Planned()
    assert not setup(wanted(), model, Quiet(), path=path).steps
    assert shape(model) == before


def test_undoing_twice_does_nothing_the_second_time(path: Path) -> None:
    model = Model([nic()])
    setup(wanted(), model, Quiet(), path=path)
    assert undo(model, Quiet(), path=path) is not None
    assert undo(model, Quiet(), path=path) is None
    assert prepare_undo(model, path=path) is None
    assert not path.parent.exists()


def test_the_switch_is_started_anew_only_when_an_option_changes_that_needs_it(path: Path) -> None:
    model = Model([nic()], options={"hw-offload": "true"}, in_force={"hw-offload": "true"})
    setup(Wanted(wanted().nic, Switch(max_idle=30000)), model, Quiet(), path=path)
    assert model.restarts == 0
    assert model.options == {"hw-offload": "true", "max-idle": "30000"}


def test_a_restart_that_a_killed_run_owes_is_made_up_for(path: Path) -> None:
    model = Model([nic()])
    total = len(prepare(wanted(), model, path=path).steps)
    for kill in range(1, 2 * total + 1):
        model = Model([nic()])
        with pytest.raises(KeyboardInterrupt):
            setup(wanted(), model, Quiet(kill), path=path)
        setup(wanted(), model, Quiet(), path=path)
        assert model.in_force == {"hw-offload": "true"}, f"killed at {kill}"
        assert model.restarts <= 2
        undo(model, Quiet(), path=path)


def test_several_nics_change_their_modes_before_any_vf_is_bound_again(path: Path) -> None:
    model = Model([nic(), nic("0000:03:00.1", name="enp3s0f1")])
    seen = Quiet()
    setup(Wanted((Nic("enp3s0f0", vfs=2), Nic("enp3s0f1", vfs=2))), model, seen, path=path)
    modes = [place for place, step in enumerate(seen.steps) if isinstance(step, SetEswitch)]
    binds = [
        place
        for place, step in enumerate(seen.steps)
        if type(step).__name__ == "SetDrivers" and any(driver for driver, _ in step.drivers)  # type: ignore[union-attr]
    ]
    assert len(modes) == len(binds) == 2
    assert max(modes) < min(binds)


def test_a_second_set_up_of_another_nic_is_undone_with_the_first(path: Path) -> None:
    model = Model([nic(), nic("0000:03:00.1", vfs=1, name="enp3s0f1")])
    before = shape(model)
    setup(wanted(), model, Quiet(), path=path)
    setup(Wanted((Nic("enp3s0f1", vfs=3, bridge="br-two"),)), model, Quiet(), path=path)
    assert len(model.nics[1].vfs) == 3
    outcome = undo(model, Quiet(), path=path)
    assert outcome is not None
    assert outcome.left == ()
    assert shape(model) == before


def test_vf_attributes_are_set_before_the_vf_is_bound(path: Path) -> None:
    model, seen = Model([nic()]), Quiet()
    vf = (VfWanted(1, mac="02:00:00:00:00:01", trust=True),)
    setup(Wanted((Nic("enp3s0f0", vfs=2, vf=vf),)), model, seen, path=path)
    assert model.nics[0].vfs[1].vf.mac == "02:00:00:00:00:01"
    assert model.nics[0].vfs[1].vf.trust
    assert model.nics[0].vfs[1].taken == "02:00:00:00:00:01"


def test_vfs_made_anew_keep_their_macs_and_take_them(path: Path) -> None:
    for mode, order in (("switchdev", "vfs-first"), ("legacy", "switchdev-first"), ("legacy", "vfs-first")):
        model = Model([nic(vfs=2, mode=mode)])
        model.nics[0].vfs[1].vf = Vf(1, "x", DRIVER, mac="02:00:00:00:00:01")
        setup(wanted(3, order=order), model, Quiet(), path=path)
        assert model.nics[0].vfs[1].taken == model.nics[0].vfs[1].vf.mac == "02:00:00:00:00:01"
        undo(model, Quiet(), path=path)


def test_the_journal_survives_as_it_was_written(path: Path) -> None:
    model = Model([nic(vfs=2)])
    setup(wanted(), model, Quiet(), path=path)
    journal = journals.load(path)
    assert journal is not None
    assert journal.before.pfs[0].num_vfs == 2
    assert journal.finished
    assert journals.load(path) == journal


# ---- from any state


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Hosts in all sorts of states."""
    nics = []
    for number in range(draw(st.integers(1, 2))):
        one = nic(f"0000:03:00.{number}", draw(st.integers(0, 3)), draw(st.sampled_from(["legacy", "switchdev"])))
        one.uplink = Device(
            f"enp3s0f{number}", draw(st.booleans()), draw(st.sampled_from([1500, 9000])), draw(st.booleans())
        )
        one.encap = draw(st.sampled_from(["none", "basic"]))
        for function in one.vfs:
            _vary(draw, one, function)
        nics.append(one)
    model = Model(nics)
    model.options = draw(
        st.dictionaries(st.sampled_from(["max-idle", "tc-policy", "n-handler-threads"]), st.sampled_from(["1", "7"]))
    )
    model.bridges = {name: [] for name in draw(st.sets(st.sampled_from(["br-ex", "br-int"])))}
    if draw(st.booleans()) and model.bridges:
        model.bridges[sorted(model.bridges)[0]].append("enp3s0f0")
    if draw(st.booleans()):
        model.qdiscs.add("enp3s0f0")
        model.others.add("enp3s0f0")
    if draw(st.booleans()):
        model.options["hw-offload"] = "true"
        model.in_force = {"hw-offload": "true"}
        model._plug()
        model.filters.clear()  # no rule is offloaded at the moment
    return model


def _vary(draw: st.DrawFn, one: machine.Nic, function: Function) -> None:
    driver = draw(st.sampled_from([DRIVER, DRIVER, "vfio-pci"]))
    Model([one])._probe(one, function, driver)
    function.vf = Vf(
        function.vf.index,
        function.vf.address,
        driver,
        "vfio-pci" if driver == "vfio-pci" else None,
        mac=draw(st.sampled_from(["00:00:00:00:00:00", "02:00:00:00:00:07"])),
        vlan=draw(st.sampled_from([0, 57])) if one.mode == "legacy" else 0,
        trust=draw(st.booleans()) if one.mode == "legacy" else False,
        rates=draw(st.sampled_from([(0, 0), (10, 100)])),
    )
    for device in (function.own, function.representor):
        if device is not None:
            device.up, device.mtu = draw(st.booleans()), draw(st.sampled_from([1500, 9000]))


@st.composite
def wishes(draw: st.DrawFn) -> Wanted:
    """What may be asked for on the first NIC; the uplink of a bridge goes where it is already."""
    return Wanted(
        (
            Nic(
                "enp3s0f0",
                vfs=draw(st.sampled_from([None, 1, 2, 4])),
                order=draw(st.sampled_from(["auto", "vfs-first", "switchdev-first"])),
                encap=draw(st.sampled_from([None, True, False])),
                bridge=draw(st.sampled_from([None, "br-int", "br-new"])),
                uplink=False,
                representors=draw(st.booleans()),
            ),
        ),
        Switch(max_idle=draw(st.sampled_from([None, 30000]))),
    )


anything = settings(max_examples=60)


def reached(host: Host, wish: Wanted) -> bool:
    """Whether *host* is as wished."""
    one, pf = wish.nic[0], host.pf("enp3s0f0")
    assert pf is not None
    assert pf.eswitch is not None
    representors = dict(host.representors(pf))
    names = {netdev.name for netdev in representors.values()}
    bridge = next((each for each in host.openvswitch.bridges if each.name == one.bridge), None)
    return (
        pf.switchdev
        and pf.num_vfs == len(representors) == (one.vfs or pf.num_vfs)
        and (one.encap is None or pf.eswitch.encap_mode == ("basic" if one.encap else "none"))
        and all(netdev.hw_tc_offload for netdev in (*representors.values(), host.uplink(pf)) if netdev)
        and all(vf.driver is not None for vf in pf.vfs)
        and host.openvswitch.hw_offload
        and (bridge is not None) == (one.bridge is not None)
        and (not one.representors or bridge is None or names <= {port.name for port in bridge.ports})
    )


@anything
@given(models(), wishes(), st.integers(1, 60), st.integers(1, 60))
def test_killed_anywhere_it_is_set_up_again_and_undone_to_what_was_before(
    model: Model, wish: Wanted, kill: int, kill_back: int
) -> None:
    before, was = shape(model), model.look()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "asap2" / "undo.json"
        run_killed(lambda observer: setup(wish, model, observer, force=True, path=path), kill)
        outcome = setup(wish, model, Quiet(), force=True, path=path)
        assert reached(outcome.host, wish)
        assert not prepare(wish, model, force=True, path=path).steps
        assert model.in_force.get("hw-offload") == "true"

        run_killed(lambda observer: undo(model, observer, force=True, path=path), kill_back)
        back = undo(model, Quiet(), force=True, path=path)
        assert back is None or back.left == ()
        assert differences(was, model.look(), [one.address for one in model.nics]) == []
        assert shape(model) == before
        assert model.in_force.get("hw-offload") == model.options.get("hw-offload")


@anything
@given(models(), wishes(), st.integers(1, 60))
def test_killed_anywhere_it_is_undone_at_once(model: Model, wish: Wanted, kill: int) -> None:
    before = shape(model)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "asap2" / "undo.json"
        run_killed(lambda observer: setup(wish, model, observer, force=True, path=path), kill)
        undo(model, Quiet(), force=True, path=path)
        assert shape(model) == before


@anything
@given(models(), wishes(), st.integers(1, 20))
def test_a_step_that_fails_anywhere_leaves_everything_as_it_was(model: Model, wish: Wanted, fail: int) -> None:
    before = shape(model)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "asap2" / "undo.json"
        model.fail = fail
        try:
            setup(wish, model, Quiet(), force=True, path=path)
        except FailedError:
            assert shape(model) == before
            assert not path.exists()
            assert model.in_force.get("hw-offload") == model.options.get("hw-offload")


def run_killed(run: object, after: int) -> None:
    """Run until the event number *after*."""
    assert callable(run)
    try:
        run(Quiet(after))
    except KeyboardInterrupt:
        return


def test_the_model_refuses_what_drivers_refuse() -> None:
    model = Model([nic(vfs=2)])
    for step in (SetVfs("0000:03:00.0", 4), SetEswitch("0000:03:00.0", "mode", "switchdev")):
        with pytest.raises(Exception, match=r"busy|not supported"):
            model.do(step)
    model.do(RestartSwitch("openvswitch-switch"))
    assert model.restarts == 1
