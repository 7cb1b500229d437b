"""The ``esm`` command.  Each of its commands lives in a file of its own, and only the one that runs is imported."""

import importlib
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup

from esm.cli.output import say

COMMANDS = {
    "run": ("esm.cli.run:run", "Run the mappings of a configuration until told to stop."),
    "validate": ("esm.cli.validate:validate", "Check a configuration without touching anything."),
    "schema": ("esm.cli.schema:schema", "Print the JSON Schema of the configuration."),
    "demo": ("esm.cli.demo:demo", "Watch records of four sources arrive, with poison among them and none lost."),
}
"""Command → where its function is, and one line of help; typer's annotations are the function's own."""


class LazyCommands(TyperGroup):
    """Finds commands in ``COMMANDS``: ``validate`` pays neither for the engine nor for the vendors' clients."""

    loaded: ClassVar[dict[str, Any]] = {}

    def list_commands(self, ctx: Any) -> list[str]:  # click's own context, which typer does not export
        """The names, in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, imported now; None for a name that there is not."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name not in self.loaded:
            module, _, function = COMMANDS[cmd_name][0].partition(":")
            alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            alone.command(cmd_name)(getattr(importlib.import_module(module), function))
            self.loaded[cmd_name] = typer.main.get_command(alone)
        return self.loaded[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of commands in the help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


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
    app(prog_name="esm")


if __name__ == "__main__":
    main()
