"""``filter_criteria``: taken in every spelling, and checked with the place inside the pattern."""

from pathlib import Path

import pytest

from tests.support.config import complaints, load_text, mapping_of, only_mapping


@pytest.mark.parametrize(
    "text",
    [
        """filter_criteria: {filters: [{pattern: '{"body":["go"]}'}]}""",
        """filter_criteria: {filter: [{pattern: '{"body":["go"]}'}]}""",
        """FilterCriteria: {Filters: [{Pattern: '{"body":["go"]}'}]}""",
    ],
)
def test_patterns_are_taken_in_every_spelling(tmp_path: Path, text: str) -> None:
    assert only_mapping(tmp_path, mapping_of("SQS", text)).patterns == ('{"body":["go"]}',)


@pytest.mark.parametrize("text", ["filter_criteria: {}", "filter_criteria: {filters: []}", ""])
def test_no_filters_are_no_patterns(tmp_path: Path, text: str) -> None:
    assert only_mapping(tmp_path, mapping_of("SQS", text)).patterns == ()


def test_every_bad_pattern_is_told_at_once_with_its_line_and_the_place_in_it(tmp_path: Path) -> None:
    text = """\
        mappings:
          - name: orders
            event_source_arn: arn:aws:sqs:eu-west-1:123456789012:orders
            function_name: f
            filter_criteria:
              filters:
                - pattern: '{"body":{"kind":["retail"]}}'
                - pattern: '{"body":{"kind":"retail"}}'
                - pattern: '{"body":{"kind":[{"wildcard":"r*"}]}}'
                - pattern: hello
        """
    at = "mappings[0].filter_criteria.filters"
    start = "pattern: Invalid filter pattern definition."
    assert complaints(tmp_path, text) == [
        f'8: {at}[1].{start} body.kind: Found "retail", expected an array of values such as ["retail"]',
        f"9: {at}[2].{start} body.kind[0].wildcard: AWS does not offer this operator in event source mappings",
        f"10: {at}[3].{start} It is no JSON at line 1, column 1: Expecting value",
    ]


@pytest.mark.parametrize("source, member", [("Kinesis", "data"), ("DynamoDB Streams", "dynamodb")])
def test_a_pattern_of_plain_text_is_refused_where_data_are_json_alone(tmp_path: Path, source: str, member: str) -> None:
    text = mapping_of(source, f"""filter_criteria: {{filters: [{{pattern: '{{"{member}":["x"]}}'}}]}}""")
    (complaint,) = complaints(tmp_path, text)
    assert complaint.endswith(
        f"definition. {member}: Found an array, expected an object: data of this source are compared as JSON alone"
    )


def test_ten_patterns_are_taken_and_eleven_are_not(tmp_path: Path) -> None:
    def many(count: int) -> str:
        several = ", ".join(["{pattern: '{}'}"] * count)
        return mapping_of("SQS", f"filter_criteria: {{filters: [{several}]}}")

    assert len(load_text(tmp_path, many(10)).config.mappings[0].patterns) == 10
    (complaint,) = complaints(tmp_path, many(11))
    assert "at most 10" in complaint


def test_a_pattern_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (complaint,) = complaints(tmp_path, mapping_of("SQS", "filter_criteria: {filters: [{pattern: 5}]}"))
    assert "mappings[0].filter_criteria.filters[0].pattern" in complaint
