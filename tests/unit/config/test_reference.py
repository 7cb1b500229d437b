"""docs/configuration.md is of one mind with the models."""

import re
from pathlib import Path

from esm.config.mapping import MappingConfig
from esm.config.variables import OVERLAID
from scripts.options import PAGE, SECTIONS, tables, written
from tests.support.config import complaints


def test_the_tables_of_the_page_are_those_of_the_models() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page) == page, "run: python -m scripts.options"
    assert tables() in page


def test_every_option_of_a_mapping_is_in_its_table() -> None:
    (table,) = re.findall(r"### `mappings\[\]`\n\n(.*?)\n\n", tables(), re.S)
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == list(MappingConfig.model_fields)


def test_every_section_has_a_table() -> None:
    headings = {heading.partition(".")[0] for heading in SECTIONS}
    assert headings == {*OVERLAID, "targets", "mappings[]"}


def test_every_example_that_the_page_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert len(links) >= 6
    assert [link for link in links if not (PAGE.parent / link).is_file()] == []


def test_the_messages_that_the_page_shows_are_real(tmp_path: Path) -> None:
    text = """\
        mappings:
          - name: orders
            event_source_arn: arn:aws:kinesis:eu-west-1:123456789012:stream/orders
            starting_position: LATEST
            function_name: f

            batch_size: 20000

            starting_positon: LATEST
        """
    shown = re.findall(r"^orders\.yaml:(.*)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert complaints(tmp_path, text) == shown
