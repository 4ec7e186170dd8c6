"""The files that describe the environment agree with each other, and the check of a machine says what is wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from qexplore import environment

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
PINS = {canonicalize_name(name): pin for name, pin in environment.tested_versions(ROOT / "constraints.txt").items()}


@pytest.mark.parametrize("line", PROJECT["dependencies"] + EXTRAS)
def test_every_dependency_is_pinned_within_its_range(line: str) -> None:
    requirement = Requirement(line)
    name = canonicalize_name(requirement.name)
    assert name in PINS, f"{name} is in pyproject.toml but not in constraints.txt."
    assert requirement.specifier.contains(PINS[name]), f"{name} is pinned to {PINS[name]}, outside {line}."


def test_torch_pin_is_the_version_tested() -> None:
    assert PINS["torch"] == "2.13.0"


def test_constraints_are_plain_pins() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        assert line.startswith("#") or [each.operator for each in Requirement(line).specifier] == ["=="], line
        assert "+" not in line, f"{line} names a local build, which no registry has."


def test_conda_environment_installs_the_package_with_the_same_constraints() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert conda["name"] == "qexplore"
    [pip] = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    assert "-c constraints.txt" in pip
    assert "-e ." in pip
    [python] = [entry for entry in conda["dependencies"] if str(entry).startswith("python=")]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python.removeprefix("python="))


def test_the_machine_running_the_tests_has_what_is_required() -> None:
    missing = [finding.sentence for finding in environment.check() if finding.level == "missing"]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize(
    ("version", "level", "words"),
    [
        (None, "missing", "thing is not installed"),
        ("3.0", "missing", "thing is 3.0, outside"),
        ("1.5", "note", "thing is 1.5; qexplore is tested with 1.4."),
        ("1.4", "ok", "thing 1.4"),
        ("1.4+cpu", "ok", "thing 1.4+cpu"),
    ],
)
def test_packages_are_judged_by_range_and_tested_version(version: str | None, level: str, words: str) -> None:
    [finding] = environment.check_packages([Requirement("thing>=1,<2")], {"thing": "1.4"}, lambda name: version)
    assert finding.level == level
    assert words in finding.sentence


def test_an_old_python_is_missing_something() -> None:
    finding = environment.check_python((3, 10, 2))
    assert finding == environment.Finding("missing", "Python is 3.10.2; qexplore needs 3.11 or newer.")


@pytest.mark.parametrize(
    ("capabilities", "machine", "level", "words"),
    [
        ({"avx2": True, "avx512_vnni": True}, "x86_64", "ok", "has VNNI"),
        ({"avx2": True}, "AMD64", "note", "AVX2 without VNNI"),
        ({}, "x86_64", "note", "neither AVX2 nor VNNI"),
        ({}, "arm64", "ok", "qnnpack"),
    ],
)
def test_the_cpu_decides_about_overflow(capabilities: dict[str, bool], machine: str, level: str, words: str) -> None:
    finding = environment.check_cpu(capabilities, machine)
    assert finding.level == level
    assert words in finding.sentence


def test_a_torch_without_int8_kernels_is_missing_something() -> None:
    assert environment.check_engines(["none"]).level == "missing"


def test_chromium_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QEXPLORE_CHROMIUM", raising=False)
    assert environment.find_browser(lambda name: None) is None
    assert environment.find_browser(lambda name: f"/usr/bin/{name}") == "/usr/bin/chromium"
    monkeypatch.setenv("QEXPLORE_CHROMIUM", "/opt/chromium")
    assert environment.find_browser(lambda name: None) == "/opt/chromium"
    assert environment.check_browser(None).level == "note"
    assert "/opt/chromium" in environment.check_browser("/opt/chromium").sentence
