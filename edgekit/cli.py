"""The command line. Every verb is a few lines; heavy imports stand inside, so that `--help` is quick.

stdout is the result (one JSON object with --json), stderr is progress. Exit codes: edgekit/errors.py.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekit import __version__
from edgekit.endings import guard, result
from edgekit.errors import DependencyError, DeviceError, GateError, UsageError

# OpenMP's threads spin while they wait. Less of it trains a small network a tenth slower on a quiet machine and does
# not stand still on a busy one, where a training was seen to fall to a tenth of its speed. Read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "50000")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # must stand before onnxruntime is loaded, here or in a child
os.environ.setdefault("NNCF_CI", "1")  # NNCF's own switch against its telemetry

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
    context_settings={"max_content_width": 100},
)

RecipePath = Annotated[
    Path, typer.Argument(help="The recipe, a YAML file; or the name of a shipped one (quickstart).", show_default=False)
]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where run folders stand.")]
Override = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change one value: --set quantize.qat_epochs=3.")
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Let the recipe import Python files outside its own folder.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
AsJson = Annotated[bool, typer.Option("--json", help="The result, or the error, as one JSON object on stdout.")]


@app.callback(invoke_without_command=True)
def edgekit(version: Annotated[bool, typer.Option("--version", help="Show the version and end.")] = False) -> None:
    """Takes a vision model to an edge device: distill, prune, quantize, export, and measure it there."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def compress(
    recipe: RecipePath,
    runs: Runs = Path("runs"),
    set_: Override = [],  # noqa: B006 - typer copies it
    allow_code: AllowCode = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe: every stage, the exports, the profiles, the report and the bundle.

    The same command again reuses every finished step; a run that was stopped goes on where it was.
    """
    with guard(as_json):
        from edgekit.recipe import load_recipe

        loaded = load_recipe(_shipped(recipe), overrides=set_, allow_code=allow_code)

        from edgekit.compress import compress as run
        from edgekit.progress import Progress
        from edgekit.report import terminal

        report = run(loaded, runs=runs, progress=Progress(quiet=quiet))
        result(report.as_dict(), as_json) if as_json else terminal.show(report)
        if not report.verdict.goal_met:
            raise typer.Exit(GateError.exit_code)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The recipe to write.")] = Path("recipe.yaml"),
    template: Annotated[
        str | None, typer.Option(metavar="NAME", help="classification, quantize-only or profile-only.")
    ] = None,
    train: Annotated[Path | None, typer.Option(metavar="DIR", help="Training images, a folder for each class.")] = None,
    test: Annotated[Path | None, typer.Option(metavar="DIR", help="Test images, likewise.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a commented recipe to begin with, and the schema that lets an editor complete it.

    Asks only on a terminal, and overwrites nothing.
    """
    with guard(as_json):
        from edgekit import init as begin

        if sys.stdin.isatty() and not as_json:
            template = template or typer.prompt("Template", default=begin.DEFAULT)
            train = train or Path(typer.prompt("Folder of training images", default="data/train"))
            test = test or Path(typer.prompt("Folder of test images", default="data/test"))
        written = begin.init(path, template or begin.DEFAULT, begin.Answers(train, test))
        result({"written": " ".join(map(str, written)), "next": f"edgekit plan {path}"}, as_json)


@app.command()
def plan(
    recipe: RecipePath,
    runs: Runs = Path("runs"),
    set_: Override = [],  # noqa: B006 - typer copies it
    allow_code: AllowCode = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Rehearse a recipe within a minute: what would fail after hours fails now.

    Opens boards and data, takes one step of every stage on a few images, exports, opens every file where it will run,
    and says what will be reused, what cannot be pruned, where Q/DQ will stand, and what it will cost. It leaves nothing
    behind; its errors and exit codes are those of `edgekit compress`.
    """
    with guard(as_json):
        from edgekit.recipe import load_recipe

        loaded = load_recipe(_shipped(recipe), overrides=set_, allow_code=allow_code)

        from edgekit.plan import plan as rehearse
        from edgekit.plan.text import render
        from edgekit.progress import Progress

        planned = rehearse(loaded, runs=runs, progress=Progress(quiet=quiet))
        typer.echo(json.dumps(planned.as_dict()) if as_json else render(planned))


@app.command()
def doctor(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe: what it needs and is absent counts as missing.", show_default=False)
    ] = None,
    runs: Runs = Path("runs"),
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Say what is missing or does not match on this machine, each with the command that mends it.

    Exit 4 where something is missing that edgekit, or the recipe, cannot do without. Nothing heavy is imported.
    """
    with guard(as_json):
        from edgekit import doctor as doctors
        from edgekit.recipe import load_recipe

        loaded = load_recipe(_shipped(recipe), allow_code=allow_code) if recipe else None
        found = doctors.examine(runs, loaded)
        typer.echo(json.dumps(found.as_dict()) if as_json else doctors.render(found))
        if found.missing:
            raise typer.Exit(DependencyError.exit_code)


@app.command()
def profile(
    path: Annotated[Path, typer.Argument(help="An ONNX file, a bundle or a run folder.", show_default=False)],
    runtime: Annotated[str, typer.Option(metavar="NAMES", help="onnxruntime,openvino; by default all there are.")] = "",
    device: Annotated[
        str | None, typer.Option(metavar="BOARD", help="Where; this machine, of a run its goal's.")
    ] = None,
    scenario: Annotated[str, typer.Option(help="single-stream, camera@30 (frames/s) or offline.")] = "single-stream",
    scope: Annotated[str, typer.Option(help="host: submit to result. e2e: from an image in memory.")] = "host",
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Of load, a candidate; 30 by default.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="5 s.")] = False,
    mlperf: Annotated[bool, typer.Option("--mlperf", help="600 s, as MLPerf asks.")] = False,
    soak: Annotated[bool, typer.Option("--soak", help="Until the temperature settles.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Of the runtime.")] = 1,
    cores: Annotated[str, typer.Option(metavar="0,1", help="The only cores to run on.")] = "",
    data: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Inputs by name; `labels` for accuracy.")
    ] = None,
    shape: Annotated[
        list[str], typer.Option(metavar="INPUT=1,3,224,224", help="Sizes that an ONNX file leaves open.")
    ] = [],  # noqa: B006 - typer copies it
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Keep the rows, and all samples beside.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure any ONNX file on a board, with what to doubt: no recipe needed.

    Exit 6 where a row is invalid; `edgekit compare` takes what --out kept.
    """
    with guard(as_json):
        from edgekit import subject
        from edgekit.progress import Progress
        from edgekit.report import profiles

        load = subject.Load(
            scenario=scenario,
            scope=scope,
            seconds=_seconds(seconds, quick=quick, mlperf=mlperf, soak=soak),
            soak=soak,
            threads=threads,
            cores=_numbers(cores, "--cores") if cores else None,
        )
        shapes = {name: _numbers(sizes, "--shape") for name, _, sizes in (one.rpartition("=") for one in shape)}
        names = [name for name in runtime.split(",") if name]
        found = subject.open_subject(path, device=device, runtimes=names, data=data, shapes=shapes)
        rows = subject.measure(found, load, out=out, report=Progress(quiet=quiet).note)
        if as_json:
            typer.echo(json.dumps(subject.as_dict(rows, found.notes)))
        else:
            profiles.show(rows, found.notes)
        if any(row.state == "invalid" for row in rows):
            raise typer.Exit(DeviceError.exit_code)


@app.command()
def compare(
    old: Annotated[Path, typer.Argument(help="A run folder, or a file of profiles.", show_default=False)],
    new: Annotated[Path, typer.Argument(help="The same, measured later.", show_default=False)],
    max_regress: Annotated[str, typer.Option(metavar="PERCENT", help="How much a p50 may grow: 5%.")] = "5%",
    as_json: AsJson = False,
) -> None:
    """Hold two measurements of the same candidates against each other; exit 5 on a regression beyond the noise."""
    with guard(as_json):
        from edgekit import compare as comparison

        found = comparison.compare(old, new, comparison.share(max_regress))
        typer.echo(json.dumps(found.as_dict())) if as_json else comparison.show(found)
        found.check()


devices = typer.Typer(no_args_is_help=True, help="What can be measured on: boards, their facts, this machine.")
app.add_typer(devices, name="devices")


@devices.command("list")
def devices_list(as_json: AsJson = False) -> None:
    """Every device and board by name, and how it is reached."""
    with guard(as_json):
        from edgekit.device import known

        found = known()
        typer.echo(json.dumps(found) if as_json else "\n".join(f"{name:24}{what}" for name, what in found.items()))


@devices.command("show")
def devices_show(
    name: Annotated[str, typer.Argument(help="A name of `devices list`.", show_default=False)], as_json: AsJson = False
) -> None:
    """The facts of a device, each with its source; of a board, those of its device and how it is reached."""
    with guard(as_json):
        from edgekit.device import describe

        _facts(describe(name), as_json)


@devices.command("detect")
def devices_detect(as_json: AsJson = False) -> None:
    """This machine: processor, instruction sets, cores, memory, runtimes found."""
    with guard(as_json):
        from edgekit.device import detect

        _facts(detect(), as_json)


@devices.command("add")
def devices_add(
    name: Annotated[str, typer.Argument(help="What the board shall be called.", show_default=False)],
    ssh: Annotated[str, typer.Option(metavar="USER@HOST", help="How ssh reaches it.", show_default=False)],
    base: Annotated[str, typer.Option(metavar="DEVICE", help="Which device it is: jetson-orin-nano-8gb.")],
    port: Annotated[int, typer.Option(min=1, max=65535)] = 22,
    python: Annotated[str, typer.Option(help="The Python there, 3.8 or newer, with numpy.")] = "python3",
    fingerprint: Annotated[
        str | None, typer.Option(metavar="SHA256:...", help="Its host key, as the board itself shows it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a board behind SSH: its host key is pinned when you have confirmed the fingerprint."""
    with guard(as_json):
        from edgekit.profile.boards import add

        def confirm(shown: str) -> bool:
            return sys.stdin.isatty() and typer.confirm(f"{ssh} shows {shown}. Is that your board?", err=True)

        path = add(name, ssh, port=port, base=base, python=python, fingerprint=fingerprint, confirm=confirm)
        result({"board": name, "file": str(path), "next": f"edgekit devices test {name}"}, as_json)


@devices.command("test")
def devices_test(
    name: Annotated[str, typer.Argument(help="A board of `devices list`.", show_default=False)], as_json: AsJson = False
) -> None:
    """Send the agent to a board, and say what is there: machine, runtimes or what to install, clocks."""
    with guard(as_json):
        from edgekit.device import open_board
        from edgekit.profile.boards import probe

        result(probe(open_board(name)), as_json)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder (RUN/bundle).", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Replay a bundle's golden vectors: its files are whole, and its outputs come out again."""
    with guard(as_json):
        from edgekit.bundle import verify as replay

        result(replay(bundle), as_json)


@app.command()
def lint(
    file: Annotated[
        Path, typer.Argument(help="An ONNX model, or TensorRT's layer information (JSON).", show_default=False)
    ],
    runtime: Annotated[str, typer.Option("--for", metavar="RUNTIME", help="tensorrt, onnxruntime or openvino.")] = "",
    version: Annotated[str | None, typer.Option("--at", metavar="VERSION", help="Of the runtime; the newest.")] = None,
    as_json: AsJson = False,
) -> None:
    """Name every place where a fusion will break or int8 falls back to float, what it costs and how to mend it."""
    with guard(as_json):
        if file.suffix == ".json":
            from edgekit.lint.layers import lint_layers

            result(lint_layers(file).as_dict(), as_json)
            return
        from edgekit.lint import lint as lint_model

        findings = lint_model(file, runtime, version)
        if as_json:
            typer.echo(json.dumps({"file": str(file), "findings": [finding.as_dict() for finding in findings]}))
        else:
            typer.echo("\n".join(map(str, findings)) or f"{file}: nothing to mend for {runtime}")
        if any(finding.severity == "error" for finding in findings):
            raise typer.Exit(GateError.exit_code)


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for completion in an editor."""
    with guard(as_json=False):
        from edgekit.recipe import schema as recipe_schema

        typer.echo(json.dumps(recipe_schema(), indent=2))


def _shipped(recipe: Path) -> Path:
    """A bare name that is no file here means the recipe of that name that edgekit ships."""
    from edgekit import resources

    return recipe if recipe.suffix or recipe.exists() else resources.recipes().get(str(recipe), recipe)


def _seconds(seconds: float | None, *, quick: bool, mlperf: bool, soak: bool) -> float:
    """Of load; a soak finds its own end."""
    asked = [length for length, given in ((seconds, seconds), (5.0, quick), (600.0, mlperf), (30.0, soak)) if given]
    if len(asked) > 1:
        raise UsageError("--seconds, --quick, --mlperf and --soak: give one of them.")
    return (asked[0] if asked else None) or 30.0


def _facts(record: dict[str, Any], as_json: bool) -> None:
    """Nested facts: one JSON object, or YAML for people."""
    if as_json:
        typer.echo(json.dumps(record))
        return
    from ruamel.yaml import YAML

    YAML().dump(record, sys.stdout)


def _numbers(text: str, flag: str) -> list[int]:
    if not all(part.strip().isdigit() for part in text.split(",")):
        raise UsageError(f"{flag}: '{text}' is no list of whole numbers.", next="write them like 1,3,224,224")
    return [int(part) for part in text.split(",")]


def main() -> None:
    """The entry point `edgekit`."""
    app(prog_name="edgekit")


if __name__ == "__main__":
    main()
