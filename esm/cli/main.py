"""The ``esm`` command.  Each of its commands lives in a file of its own, and only the one that runs is imported."""

import gc
import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from esm.cli.output import say

COMMANDS = {
    "run": ("esm.cli.run:run", "Run the mappings of a configuration until told to stop."),
    "validate": ("esm.cli.validate:validate", "Check a configuration without touching anything."),
    "schema": ("esm.cli.schema:schema", "Print the JSON Schema of the configuration."),
    "filter-test": ("esm.cli.filter_test:filter_test", "Say which records a filter's patterns let through."),
    "demo": ("esm.cli.demo:demo", "See records of four sources arrive, poison aside, none lost."),
}
"""Command → where its function is, and one line of help; typer's annotations are the function's own."""


class LazyCommands(TyperGroup):
    """Imports the one command that runs: ``validate`` pays neither for the engine nor for the vendors' clients.

    Help, completion and the guess for a misspelt command know the names and one line of each, and import none.
    """

    def __init__(self, **settings: Any) -> None:  # typer's own, handed on
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=text) for name, (_, text) in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # click's context and command, which typer hides
        """The name, the command itself, the arguments that are left.  Raises click's UsageError for an unknown name."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, _imported(name) if name in COMMANDS else command, rest


def _imported(name: str) -> Any:
    from esm.cli.quick_imports import quick_imports

    module, _, function = COMMANDS[name][0].partition(":")
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    with quick_imports():
        command = getattr(importlib.import_module(module), function)
    if name != "run":  # it does so itself, once it runs
        gc.enable()
    alone.command(name, short_help=COMMANDS[name][1])(command)
    return typer.main.get_command(alone)


app = typer.Typer(
    cls=LazyCommands,
    rich_markup_mode=None,  # plain help: rich costs 60 ms
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # only who asks pays for it

        say(f"esm {version('esm')}")
        raise typer.Exit


@app.callback()
def esm(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Poll SQS, Kinesis, DynamoDB Streams and Kafka, and invoke a target with each batch.

    The semantics are those of AWS Lambda's event source mappings.
    """


def main() -> None:
    """Entry point of the console script."""
    gc.disable()  # nothing that is made on the way up goes away again
    app(prog_name="esm")


if __name__ == "__main__":
    main()
