"""A Jetson's power mode and clocks, with a fake of its commands: what is asked, and that it is put back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.bench.clocks import Clocks, facts, mode_ids, power_mode, run_command
from edgekit.bench.hold import held
from edgekit.errors import DeviceError, InputError

CONF = "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"


class FakeJetson:
    """nvpmodel and jetson_clocks. permitted: whether sudo asks for no password. stuck: a mode that wants a reboot."""

    def __init__(self, root: Path, mode: str = "15W", permitted: bool = True, stuck: bool = False):
        (root / "etc").mkdir()
        (root / "etc" / "nvpmodel.conf").write_text(CONF)
        self.mode, self.locked, self.asked = mode, False, list[str]()
        self._root, self._permitted, self._stuck = root, permitted, stuck

    def __call__(self, *words: str) -> tuple[int, str]:
        self.asked.append(" ".join(words))
        if words == ("nvpmodel", "-q"):
            return 0, f"NV Power Mode: {self.mode}\n{mode_ids(self._root)[self.mode]}\n"
        if words[:2] == ("sudo", "-n") and not self._permitted:
            return 1, "sudo: a password is required\n"
        if words[2:4] == ("nvpmodel", "-m"):
            if self._stuck:
                return 0, "NVPM WARN: Reboot required for changing to this power mode: 2\n"
            self.mode = {number: name for name, number in mode_ids(self._root).items()}[int(words[4])]
        elif words[2:] == ("jetson_clocks",):
            self.locked = True
        elif words[3] == "--store":
            Path(words[4]).write_text(json.dumps(self.locked))
        elif words[3] == "--restore":
            self.locked = json.loads(Path(words[4]).read_text())
        return 0, ""


def clocks(folder: Path, jetson: FakeJetson) -> Clocks:
    return Clocks(folder, jetson, folder)


def test_a_mode_is_set_by_its_name_and_both_are_put_back(tmp_path: Path) -> None:
    jetson = FakeJetson(tmp_path)
    with held(tmp_path, {"power_mode": "MAXN_SUPER"}, 0, clocks(tmp_path, jetson)) as reached:
        assert (jetson.mode, jetson.locked) == ("MAXN_SUPER", True)
        assert reached == {"locked": True, "why": None}
    assert "sudo -n nvpmodel -m 2" in jetson.asked
    assert (jetson.mode, jetson.locked) == ("15W", False)


def test_they_are_put_back_when_the_user_is_interrupted(tmp_path: Path) -> None:
    jetson = FakeJetson(tmp_path)
    wanted = {"power_mode": "MAXN_SUPER"}
    with pytest.raises(SystemExit), held(tmp_path, wanted, 0, clocks(tmp_path, jetson)):
        raise SystemExit(143)
    assert (jetson.mode, jetson.locked) == ("15W", False)


def test_what_a_killed_holder_left_is_put_back_by_the_next(tmp_path: Path) -> None:
    jetson = FakeJetson(tmp_path)
    clocks(tmp_path, jetson).lock("MAXN_SUPER")  # and never restored
    with held(tmp_path, {}, 0, clocks(tmp_path, jetson)):
        assert jetson.mode == "15W"
    assert (jetson.mode, jetson.locked) == ("15W", False)


def test_without_permission_the_clocks_float_and_the_reason_is_said(tmp_path: Path) -> None:
    jetson = FakeJetson(tmp_path, permitted=False)
    with held(tmp_path, {}, 0, clocks(tmp_path, jetson)) as reached:
        assert reached == {"locked": False, "why": "jetson_clocks: sudo: a password is required"}


def test_a_mode_that_cannot_be_had_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    jetson = FakeJetson(tmp_path, stuck=True)
    wanted = {"power_mode": "MAXN_SUPER"}
    with pytest.raises(DeviceError, match="does not take 'MAXN_SUPER'") as caught:
        held(tmp_path, wanted, 0, clocks(tmp_path, jetson)).__enter__()
    assert "Reboot required" in str(caught.value)
    assert "sudo nvpmodel -m 2" in str(caught.value)


def test_an_unknown_mode_brings_the_name_that_was_meant(tmp_path: Path) -> None:
    jetson = FakeJetson(tmp_path)
    with pytest.raises(InputError, match="Did you mean 'MAXN_SUPER'"):
        held(tmp_path, {"power_mode": "MAXN-SUPER"}, 0, clocks(tmp_path, jetson)).__enter__()
    assert jetson.mode == "15W"


def test_a_board_without_nvpmodel_cannot_be_given_a_mode(tmp_path: Path) -> None:
    none = Clocks(tmp_path, lambda *words: (127, "not found"), tmp_path)
    assert none.lock(None) == {"locked": False, "why": "the board has no nvpmodel"}
    with pytest.raises(InputError, match="the board has no mode '15W'"):
        none.lock("15W")


def test_a_board_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    none = Clocks(tmp_path, lambda *words: (127, ""), tmp_path)
    with (
        held(tmp_path, {}, 0, none),
        pytest.raises(DeviceError, match="another edgekit is measuring"),
        held(tmp_path, {}, 0, none),
    ):
        pass


def test_clocks_are_locked_when_none_may_move(tmp_path: Path) -> None:
    def clock(folder: str, prefix: str, low: int, high: int) -> None:
        part = tmp_path / "sys" / folder
        part.mkdir(parents=True, exist_ok=True)
        (part / f"{prefix}min_freq").write_text(f"{low}\n")
        (part / f"{prefix}max_freq").write_text(f"{high}\n")

    def silent(*words: str) -> tuple[int, str]:
        return 127, ""

    assert facts(tmp_path, silent) == {"power_mode": None, "clocks": None}
    clock("devices/system/cpu/cpufreq/policy0", "scaling_", 1510400, 1510400)
    assert facts(tmp_path, silent)["clocks"] == "locked"
    clock("class/devfreq/17000000.gpu", "", 306000000, 1020000000)
    assert facts(tmp_path, silent)["clocks"] == "floating"


def test_a_command_that_is_not_there_is_127_and_one_that_asks_is_told_no() -> None:
    assert run_command("edgekit-no-such-command")[0] == 127
    assert run_command("sh", "-c", "read answer; echo got $answer") == (0, "got no\n")


def test_the_mode_is_read_by_name() -> None:
    assert power_mode(lambda *words: (0, "NV Power Mode: MODE_15W_6CORE\n2\n")) == "MODE_15W_6CORE"
    assert power_mode(lambda *words: (1, "NVPM ERROR: Error opening file")) is None
