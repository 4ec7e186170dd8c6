"""What this machine has for qexplore, in plain words: `python -m qexplore.environment`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

Level = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing found: "ok", a "note" worth knowing, or something required that is "missing"."""

    level: Level
    sentence: str


def installed_version(name: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def requirements() -> list[Requirement]:
    """What qexplore requires on this machine, without its extras."""
    found = [Requirement(line) for line in metadata.requires("qexplore") or ()]
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": ""})]


def tested_versions(path: Path = CONSTRAINTS) -> dict[str, str]:
    """The versions qexplore is tested with, by package; empty where qexplore is installed without its sources."""
    if not path.exists():
        return {}
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return dict(line.split("==") for line in lines if line)


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Whether Python is new enough."""
    text = ".".join(map(str, version))
    if version < (3, 11):
        return Finding("missing", f"Python is {text}; qexplore needs 3.11 or newer.")
    return Finding("ok", f"Python {text} on {platform.system()} {platform.machine()}.")


def check_packages(
    required: Iterable[Requirement],
    tested: Mapping[str, str],
    installed: Callable[[str], str | None] = installed_version,
) -> list[Finding]:
    """Which required packages are missing, outside their range, or not the versions tested."""
    findings, as_tested = [], []
    for requirement in required:
        name, version = requirement.name, installed(requirement.name)
        if version is None:
            findings.append(Finding("missing", f"{name} is not installed; run `pip install '{requirement}'`."))
        elif not requirement.specifier.contains(version, prereleases=True):
            findings.append(Finding("missing", f"{name} is {version}, outside {requirement.specifier}."))
        elif name in tested and version.partition("+")[0] != tested[name]:
            findings.append(Finding("note", f"{name} is {version}; qexplore is tested with {tested[name]}."))
        else:
            as_tested.append(f"{name} {version}")
    if as_tested:
        findings.insert(0, Finding("ok", f"Packages: {', '.join(as_tested)}."))
    return findings


def check_engines(engines: Iterable[str]) -> Finding:
    """Whether this build of torch has int8 kernels."""
    names = [engine for engine in engines if engine != "none"]
    if not names:
        return Finding("missing", "This build of torch has no engine for quantized models.")
    return Finding("ok", f"Engines for int8 models: {', '.join(names)}.")


def check_cpu(capabilities: Mapping[str, Any], machine: str) -> Finding:
    """What the CPU's instructions mean for int8: speed, and whether sums can overflow."""
    if machine.lower() not in {"x86_64", "amd64"}:
        return Finding("ok", f"The CPU is {machine}: int8 sums cannot overflow here; the engine is usually qnnpack.")
    if capabilities.get("avx512_vnni"):
        return Finding("ok", "The CPU has VNNI: int8 sums are exact and at their fastest.")
    has = "AVX2 without VNNI" if capabilities.get("avx2") else "neither AVX2 nor VNNI"
    what = "8-bit activations with full-range 8-bit weights can overflow, so the overflow guard is on by default."
    return Finding("note", f"The CPU has {has}: {what}")


def check_threads(cores: int, threads: int) -> Finding:
    """How much of the machine torch uses, which every timing depends on."""
    return Finding("ok", f"{cores} CPU cores, of which torch uses {threads}; timings hold for that number.")


def find_browser(which: Callable[[str], str | None] = shutil.which) -> str | None:
    """Where Chromium is: QEXPLORE_CHROMIUM if set, else the first one on the path."""
    return os.environ.get("QEXPLORE_CHROMIUM") or next(filter(None, map(which, BROWSERS)), None)


def check_browser(found: str | None) -> Finding:
    """Whether the tests can drive a browser."""
    if found is None:
        return Finding("note", "Chromium is not installed; only the browser tests need it.")
    return Finding("ok", f"Chromium for the browser tests: {found}.")


def check() -> list[Finding]:
    """Everything about this machine; torch is imported only if it is installed."""
    findings = [check_python()]
    if installed_version("qexplore") is None:
        findings.append(Finding("note", "qexplore runs from its sources, so its packages were not checked."))
    else:
        findings += check_packages(requirements(), tested_versions())
    try:
        import torch
    except (ImportError, OSError) as error:
        findings.append(Finding("missing", f"torch cannot be imported: {error}."))
    else:
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        findings += [
            check_engines(torch.backends.quantized.supported_engines),
            check_cpu(capabilities, platform.machine()),
            check_threads(os.cpu_count() or 1, torch.get_num_threads()),
        ]
    return [*findings, check_browser(find_browser())]


def main() -> int:
    """Print every finding; 1 if something required is missing."""
    findings = check()
    for finding in findings:
        print(f"{finding.level:8}{finding.sentence}")
    return int(any(finding.level == "missing" for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
