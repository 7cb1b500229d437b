"""What a person sees: one line a source while it runs, and the sum at the end."""

from collections.abc import Callable, Sequence
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from esm.cli.demo.story import Story
from esm.cli.demo.tally import Tally

COLUMNS = ("sent", "delivered", "discarded", "retries", "duplicates", "waiting")


class Screen(Protocol):
    """Shows how far it is; a context."""

    def show(self) -> None:
        """Something may have changed."""
        ...


class LiveScreen:
    """A terminal: a table that changes in place, and the last things that happened."""

    def __init__(self, console: Console, tallies: Sequence[Tally], story: Story) -> None:
        self._tallies, self._story = tallies, story
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> "LiveScreen":
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.show()
        self._live.__exit__(None, None, None)

    def show(self) -> None:
        """See Screen."""
        lines = [Text(sentence, overflow="ellipsis", no_wrap=True, style="dim") for sentence in self._story.last]
        self._live.update(Group(table_of(self._tallies), Text(), *lines), refresh=True)


class PlainScreen:
    """No terminal: what happened, a line each, and nothing else."""

    def __init__(self, say: Callable[[str], None], story: Story) -> None:
        self._say, self._story = say, story
        self._told = 0

    def skip(self) -> None:
        """What happened so far was told elsewhere."""
        self._told = self._story.told

    def __enter__(self) -> "PlainScreen":
        return self

    def __exit__(self, *error: object) -> None:
        self.show()

    def show(self) -> None:
        """See Screen."""
        new = min(self._story.told - self._told, len(self._story.last))
        for sentence in list(self._story.last)[len(self._story.last) - new :]:
            self._say(sentence)
        self._told = self._story.told


class NoScreen:
    """Just the summary was asked for."""

    def __enter__(self) -> "NoScreen":
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing was shown."""

    def show(self) -> None:
        """See Screen."""


def table_of(tallies: Sequence[Tally]) -> Table:
    """One line a source, at most 80 columns wide."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for tally in tallies:
        discarded = len(tally.discarded)
        numbers = (len(tally.sent), tally.delivered, discarded, tally.retries, tally.duplicates, tally.waiting)
        table.add_row(tally.name, *(f"{number:,}" for number in numbers))
    return table


def sentence_of(tallies: Sequence[Tally]) -> str:
    """``8,000 sent = 7,995 delivered + 0 filtered + 5 discarded, 0 lost, counted by the functions themselves``."""
    sums = [tally.summary() for tally in tallies]
    sent, delivered, filtered, discarded, lost = (
        sum(each[name] for each in sums) for name in ("sent", "delivered", "filtered", "discarded", "lost")
    )
    return (
        f"{sent:,} sent = {delivered:,} delivered + {filtered:,} filtered + {discarded:,} discarded, {lost:,} lost, "
        "counted by the functions themselves"
    )
