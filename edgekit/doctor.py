"""What is missing or does not match on this machine, each with the command that mends it.

Reads package metadata and the system, and imports no heavy package: the answer comes within a second or two, also where
torch is what is broken.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from edgekit import lookup
from edgekit.device import detect, open_board

if TYPE_CHECKING:
    from edgekit.recipe import Recipe

LEAST_DISK_GB, LEAST_MEMORY_GB = 5.0, 4.0
TELEMETRY = "ORT_DISABLE_TELEMETRY"
LIBRARIES = ("torchvision", "timm")  # whose networks a recipe names as `library:network`
EXTRAS = (*LIBRARIES, "openvino", "tensorrt", "tensorrt-rtx")  # what `pip install 'edgekit[...]'` offers
# instruction set -> what it means for the files edgekit makes; the first that is there is said
MEANING = {
    "amx_int8": "AMX: int8 in matrix tiles, bf16 too where amx_bf16 is named; measure bf16 against int8",
    "avx512_vnni": "AVX-512 VNNI: int8 by dot products, up to four times the arithmetic of float32",
    "avx_vnni": "AVX-VNNI: int8 by dot products",
    "i8mm": "int8 matrix products: int8 is much faster than float32",
    "asimddp": "int8 dot products: int8 is faster than float32",
    "avx2": "no int8 dot products: int8 gains little here, and may saturate; measure on the device itself",
}


@dataclass(frozen=True)
class Finding:
    """One piece of the machine.

    state: `ok`; `missing`, without which edgekit or the recipe cannot run; `absent`, not needed by what was asked;
    `doubt`, works, but not as well. next: the command that mends it.
    """

    name: str
    state: Literal["ok", "missing", "absent", "doubt"]
    says: str
    next: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    findings: tuple[Finding, ...]

    @property
    def missing(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.state == "missing")

    def as_dict(self) -> dict[str, Any]:
        return {"schema": "edgekit.doctor/1", "findings": [asdict(one) for one in self.findings]}


def examine(runs: Path, recipe: Recipe | None = None) -> Diagnosis:
    """runs: the folder runs are kept in. recipe: what it needs and is absent counts as missing."""
    needed = _needs(recipe) if recipe else set()
    found = [
        *_packages(),
        *_runtimes(),
        *_libraries(),
        *_telemetry(),
        *_gpu(),
        *_compilers(),
        _instructions(detect()),
        _disk(runs),
        _memory(Path("/")),
        *_locks(runs),
    ]
    wanted = [one.state == "absent" and one.name in needed for one in found]
    return Diagnosis(
        tuple(replace(one, state="missing") if want else one for one, want in zip(found, wanted, strict=True))
    )


def render(diagnosis: Diagnosis) -> str:
    """A line for each finding, and the command below what is not right."""
    lines = []
    for one in diagnosis.findings:
        lines.append(f"{one.state:8}{one.name}: {one.says}")
        if one.next and one.state != "ok":
            lines.append(f"{'':8}  {one.next}")
    count = len(diagnosis.missing)
    return "\n".join([*lines, "", f"{count} missing" if count else "Nothing that is needed is missing."])


def _needs(recipe: Recipe) -> set[str]:
    """Names of the optional findings that a recipe cannot do without."""
    boards = [open_board(name, folder=recipe.folder) for name in recipe.boards()]
    needs = {f"runtime {recipe.goal.runtime}"} if boards[0].link == "local" else set()
    needs |= {board.link for board in boards}
    return needs | {text.partition(":")[0] for text in _texts(recipe.resolved()) if ":" in text}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for below in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(below)


def _packages() -> Iterator[Finding]:
    """Python and everything edgekit requires, against the versions it asks for."""
    python, requirements = _required()
    version = ".".join(map(str, sys.version_info[:3]))
    fits = version in SpecifierSet(python)
    says = version if fits else f"{version}, edgekit needs {python}"
    yield Finding("python", "ok" if fits else "missing", says, "python3.12 -m venv .venv")
    for one in requirements:
        found, command = _version(one.name), f"pip install '{one}'"
        if found is None:
            yield Finding(one.name, "missing", "not installed", command)
        elif not one.specifier.contains(found, prereleases=True):
            yield Finding(one.name, "missing", f"{found}, edgekit needs {one.specifier}", command)
        else:
            yield Finding(one.name, "ok", found)


def _required() -> tuple[str, list[Requirement]]:
    """Python's versions and the packages: as installed, or from pyproject.toml in a checkout."""
    try:
        metadata = importlib.metadata.metadata("edgekit")
        python, texts = metadata["Requires-Python"], importlib.metadata.requires("edgekit") or []
    except importlib.metadata.PackageNotFoundError:
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
        python, texts = project["requires-python"], project["dependencies"]
    requirements = []
    for text in texts:
        try:
            requirements.append(Requirement(text))
        except InvalidRequirement:  # another tool's metadata; pip has judged it already
            continue
    return python, [one for one in requirements if one.marker is None or one.marker.evaluate()]


def _runtimes() -> Iterator[Finding]:
    """Every runtime edgekit has a file for, judged by that file."""
    for name in lookup.names("runtimes"):
        if name == "null":
            continue
        reason = lookup.find("runtimes", name).missing()
        if reason is None:
            yield Finding(f"runtime {name}", "ok", _providers() if name == "onnxruntime" else "can run here")
            continue
        extra = name.replace("_", "-")
        mend = f"pip install 'edgekit[{extra}]'" if extra in EXTRAS and "not installed" in reason else None
        yield Finding(f"runtime {name}", "absent", reason.partition(": ")[0] if mend else reason, mend)
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if len(both) > 1:
        again = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime"
        yield Finding("onnxruntime packages", "doubt", f"{' and '.join(both)} overwrite each other's files", again)


def _providers() -> str:
    """The CPU is always there; others come as libraries of their own, so that nothing need be loaded to see them."""
    spec = importlib.util.find_spec("onnxruntime")
    folder = Path((spec.submodule_search_locations or ["."])[0] if spec else ".") / "capi"
    names = [path.stem.removeprefix("libonnxruntime_providers_") for path in folder.glob("libonnxruntime_providers_*")]
    return f"providers: {', '.join(['cpu', *sorted(set(names) - {'shared'})])}; edgekit measures with cpu"


def _libraries() -> Iterator[Finding]:
    for name in LIBRARIES:
        found = _version(name)
        yield Finding(name, "ok" if found else "absent", found or "not installed", f"pip install 'edgekit[{name}]'")
    torch, vision = _version("torch"), _version("torchvision")
    if torch and vision and ("+cpu" in torch) != ("+cpu" in vision):
        says = f"torch {torch} and torchvision {vision} are different builds: torchvision's operators will not load"
        yield Finding("torch and torchvision", "doubt", says, "pip install --force-reinstall torch torchvision")
    client = shutil.which("ssh")
    yield Finding("ssh", "ok" if client else "absent", client or "no client found", "apt-get install openssh-client")


def _telemetry() -> Iterator[Finding]:
    off = os.environ.get(TELEMETRY) == "1"
    says = f"onnxruntime's is {'off' if off else 'on'}"
    yield Finding("telemetry", "ok" if off else "doubt", says, f"export {TELEMETRY}=1")


def _gpu() -> Iterator[Finding]:
    """The driver, and whether the torch that is installed was built for it; its version says so (`2.10.0+cpu`)."""
    driver, torch = Path("/proc/driver/nvidia/version"), _version("torch") or ""
    if not driver.exists():
        yield Finding("cuda", "absent", "no NVIDIA driver: training runs on the processor")
        return
    yield Finding("cuda", "ok", driver.read_text().splitlines()[0])
    if "+cpu" in torch:
        again = "pip install --force-reinstall torch"
        yield Finding("torch and cuda", "doubt", f"torch {torch} was built without CUDA: the GPU stays idle", again)


def _compilers() -> Iterator[Finding]:
    """Only NNCF's own quantizers compile (and a GPU's with nvcc); edgekit's are plain torch."""
    for name, command in (("g++", "apt-get install g++"), ("nvcc", "apt-get install nvidia-cuda-toolkit")):
        path = shutil.which(name)
        yield Finding(name, "ok" if path else "absent", path or "not found; edgekit itself compiles nothing", command)


def _instructions(machine: Mapping[str, Any]) -> Finding:
    """What the processor's instruction sets mean for int8 and bf16."""
    have = machine["instruction_sets"]
    best = next((MEANING[name] for name in MEANING if name in have), None)
    if best is None:
        return Finding("processor", "doubt", f"{machine['cpu']}: no int8 instructions are known of it; measure")
    state: Literal["ok", "doubt"] = "doubt" if best is MEANING["avx2"] else "ok"
    return Finding("processor", state, f"{machine['cpu']}, {machine['cores']} cores ({', '.join(have)}). {best}")


def _disk(runs: Path) -> Finding:
    place = next(path for path in (runs.resolve(), *runs.resolve().parents) if path.exists())
    free_gb = shutil.disk_usage(place).free / 1e9
    if not os.access(place, os.W_OK):
        return Finding("disk", "missing", f"{place} cannot be written", "edgekit compress RECIPE --runs DIR")
    enough = free_gb >= LEAST_DISK_GB
    says = f"{free_gb:.0f} GB free in {runs}" + ("" if enough else "; a run of a large network may not fit")
    return Finding("disk", "ok" if enough else "doubt", says, "edgekit compress RECIPE --runs DIR")


def _memory(root: Path) -> Finding:
    """What the system offers, or a container's limit where that is less."""
    fields = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
    offered_gb = int(fields["MemAvailable"].split()[0]) * 1024 / 1e9
    limit = root / "sys/fs/cgroup/memory.max"
    text = limit.read_text().strip() if limit.exists() else "max"
    gb = offered_gb if text == "max" else min(offered_gb, int(text) / 1e9)
    enough = gb >= LEAST_MEMORY_GB
    return Finding("memory", "ok" if enough else "doubt", f"{gb:.1f} GB available", "edgekit plan RECIPE")


def _locks(runs: Path) -> Iterator[Finding]:
    """Locks a killed compiler left in torch's cache, on which the next start waits forever; runs that are at work."""
    cache = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions")
    for lock in sorted(cache.glob("**/lock")):
        yield Finding("stale lock", "doubt", f"{lock}: if nothing compiles now, a killed build left it", f"rm '{lock}'")
    busy = [lock.parent for lock in sorted(runs.glob("*/.lock")) if _held(lock)]
    for folder in busy:
        yield Finding("run at work", "ok", f"{folder} is locked by a process that is alive")


def _held(lock: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(lock, blocking=False):
            return False
    except Timeout:
        return True


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
