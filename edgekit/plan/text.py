"""A plan on the terminal: 100 columns, no colours that carry meaning."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.progress import duration

if TYPE_CHECKING:
    from edgekit.plan import Plan, Planned

WIDTH = 100


def render(plan: Plan) -> str:
    """Everything a person should look at before starting the run, the costly things last."""
    parts = [
        *_section("The recipe, every default filled in", _yaml(plan.resolved)),
        *_section("Python files that were imported, and will be", plan.code or ["none"]),
        *_section("Data", [_data(plan)]),
        *_section("Steps", _steps(plan)),
        *_section("Channels that cannot be pruned", [line for step in plan.steps for line in _frozen(step)]),
        *_section("Where Q/DQ will stand", [line for step in plan.steps for line in _quantizers(step)]),
        *_section("Files that opened", [f"{board}: {', '.join(names)}" for board, names in plan.files.items()]),
        *_section("Notes", [*([plan.budget] if plan.budget else []), *plan.notes]),
        *_section("Expect", [_expect(plan)]),
    ]
    return "\n".join(parts)


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    """Nothing where there are no lines; long ones are wrapped."""
    if not lines:
        return
    yield title
    for line in lines:
        indent = "  " + " " * (len(line) - len(line.lstrip()))
        yield textwrap.fill(line.strip(), WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")
    yield ""


def _data(plan: Plan) -> str:
    data = plan.data
    counts = f"{data['train']} training, {data['validation']} validation and {data['test']} test images"
    return f"{counts} of {data['classes']} classes; the network is fed {data['input']}; split: {data['split_by']}"


def _steps(plan: Plan) -> list[str]:
    lines = []
    for step in plan.steps:
        facts = f"{step.parameters:,} weights, {step.macs / 1e6:,.1f} million MACs, {step.size_kb:,.1f} kB"
        if step.p50_ms is not None:
            facts += f", {step.p50_ms:.3g} ms"
        seconds = plan.estimate.stage_s.get(step.step)
        state = "reused" if step.cached else "" if seconds is None else f"about {duration(seconds)}"
        lines.append(f"{step.step}: {state}{', ' if state else ''}{step.why}")
        lines.append(f"    {facts}; the file differs from its network by {step.parity['error']:.1g} of its output")
    return lines


def _frozen(step: Planned) -> list[str]:
    return [f"{step.step}: {one['layer']}: {one['reason']}" for one in step.frozen]


def _quantizers(step: Planned) -> list[str]:
    if step.quantizers is None:
        return []
    return [
        f"{step.step}, {len(names)} of {kind}: {', '.join(names)}" for kind, names in sorted(step.quantizers.items())
    ]


def _expect(plan: Plan) -> str:
    found, reused = plan.estimate, [step.step for step in plan.steps if step.cached]
    seconds = found.profile_s + sum(s for name, s in found.stage_s.items() if name not in reused)
    memory = f"{found.memory_bytes / 1e9:.1f} GB of memory" + (
        f" (most in {found.memory_of})" if found.memory_of else ""
    )
    return f"about {duration(seconds)}, {memory}, {found.disk_bytes / 1e6:,.0f} MB of disk"


def _yaml(resolved: Mapping[str, Any]) -> list[str]:
    """In the order of a recipe; lists and small mappings on one line."""
    from ruamel.yaml import YAML

    stream, yaml = io.StringIO(), YAML(typ="safe", pure=True)
    yaml.width = 2 * WIDTH
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(dict(resolved), stream)
    return stream.getvalue().splitlines()
