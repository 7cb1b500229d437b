"""The expressions of DynamoDB: conditions, projections and updates, parsed once per text.

A parsed expression is a function of a ``Scope``: the item, and the names and values that the request defines.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, cast

from esm.sandbox.attributes import DIGITS, Item, Value, canon, number, number_text, size_of
from esm.sandbox.wire import AwsError

Step: TypeAlias = str | int
Operand: TypeAlias = Callable[["Scope"], Value | None]
Condition: TypeAlias = Callable[["Scope"], bool]
PathOf: TypeAlias = Callable[["Scope"], Sequence[Step]]

_TOKEN = re.compile(r"\s*(?:([#:]?[A-Za-z_0-9]+)|(<>|<=|>=|[=<>(),.\[\]+-]))")
_WORDS = frozenset({"AND", "OR", "NOT", "BETWEEN", "IN", "SET", "REMOVE", "ADD", "DELETE"})
# Those of AWS's 573 reserved words that a table of leases or a test is likely to use by mistake.
_RESERVED = frozenset(
    [
        "ACTION",
        "ADD",
        "ALL",
        "AND",
        "ANY",
        "ARRAY",
        "AT",
        "ATTRIBUTE",
        "BATCH",
        "BEGIN",
        "BETWEEN",
        "BINARY",
        "BLOCK",
        "BY",
        "BYTE",
        "CHARACTER",
        "CHECK",
        "COLLECTION",
        "COLUMN",
        "COMMENT",
        "CONDITION",
        "CONNECTION",
        "CONSUMED",
        "COUNT",
        "COUNTER",
        "CURRENT",
        "DATA",
        "DATE",
        "DAY",
        "DEFINE",
        "DELETE",
        "DOMAIN",
        "DURATION",
        "EACH",
        "ELEMENT",
        "END",
        "ERROR",
        "EXISTS",
        "EXIT",
        "FAIL",
        "FIRST",
        "FORCE",
        "FORMAT",
        "FROM",
        "FUNCTION",
        "GENERAL",
        "GET",
        "GROUP",
        "HASH",
        "HOUR",
        "IDENTIFIED",
        "IN",
        "INDEX",
        "INSERT",
        "ITEM",
        "ITEMS",
        "KEY",
        "KEYS",
        "LAG",
        "LANGUAGE",
        "LAST",
        "LENGTH",
        "LEVEL",
        "LIMIT",
        "LIST",
        "LOCAL",
        "LOCATION",
        "LOCK",
        "LOG",
        "MAP",
        "MAX",
        "MEMBER",
        "METHOD",
        "MIN",
        "MINUTE",
        "MODE",
        "MODIFY",
        "MONTH",
        "NAME",
        "NAMES",
        "NEXT",
        "NO",
        "NOT",
        "NULL",
        "NUMBER",
        "OBJECT",
        "OF",
        "OFFSET",
        "OLD",
        "ON",
        "OPEN",
        "OR",
        "ORDER",
        "OUTPUT",
        "OWNER",
        "PARTITION",
        "PATH",
        "PERCENT",
        "POSITION",
        "PRIMARY",
        "PRIVATE",
        "PROCESSED",
        "PUBLIC",
        "PUT",
        "QUERY",
        "RANGE",
        "READ",
        "RECORD",
        "REFERENCE",
        "REGION",
        "RELEASE",
        "REPLACE",
        "REQUEST",
        "RESOURCE",
        "RESPONSE",
        "RESULT",
        "RETURN",
        "ROLE",
        "ROW",
        "ROWS",
        "SCAN",
        "SCHEMA",
        "SECOND",
        "SECTION",
        "SEQUENCE",
        "SET",
        "SHARD",
        "SHARE",
        "SIZE",
        "SOURCE",
        "START",
        "STATE",
        "STATUS",
        "STREAM",
        "STRING",
        "SYSTEM",
        "TABLE",
        "TIME",
        "TIMESTAMP",
        "TO",
        "TOKEN",
        "TOTAL",
        "TTL",
        "TYPE",
        "UNIQUE",
        "UPDATE",
        "USER",
        "USERS",
        "USING",
        "UUID",
        "VALUE",
        "VALUES",
        "VIEW",
        "WAIT",
        "WHEN",
        "WHERE",
        "WINDOW",
        "WITH",
        "WORK",
        "YEAR",
        "ZONE",
    ]
)


class Scope:
    """What an expression is evaluated in; remembers which names and values were used."""

    def __init__(self, names: Mapping[str, str], values: Mapping[str, Value]) -> None:
        self.item: Item = {}
        self._names = names
        self._values = values
        self._used: set[str] = set()

    def name(self, word: str) -> str:
        """The attribute that ``word`` of an expression names."""
        if not word.startswith("#"):
            if word.upper() in _RESERVED:
                raise invalid(f"Attribute name is a reserved keyword; reserved keyword: {word}")
            return word
        if word not in self._names:
            raise invalid(
                f"An expression attribute name used in the document path is not defined; attribute name: {word}"
            )
        self._used.add(word)
        return self._names[word]

    def value(self, word: str) -> Value:
        """The value of a placeholder."""
        if word not in self._values:
            raise invalid(f"An expression attribute value used in expression is not defined; attribute value: {word}")
        self._used.add(word)
        return self._values[word]

    def uses(self, expression: str | None) -> None:
        """Note what ``expression`` uses, whether or not it is evaluated to its end."""
        self._used.update(word for word in re.findall(r"[#:][A-Za-z0-9_]+", expression or ""))

    def check_all_used(self) -> None:
        """Raises AwsError for placeholders that no expression uses, as AWS does."""
        for kind, given in (("Names", self._names), ("Values", self._values)):
            unused = sorted(set(given) - self._used)
            if unused:
                shown = ", ".join(unused)
                raise invalid(f"Value provided in ExpressionAttribute{kind} unused in expressions: keys: {{{shown}}}")


class Update:
    """A parsed UpdateExpression."""

    def __init__(self) -> None:
        self.sets: list[tuple[PathOf, Operand]] = []
        self.removes: list[PathOf] = []
        self.adds: list[tuple[PathOf, Operand]] = []
        self.deletes: list[tuple[PathOf, Operand]] = []

    def touched(self, scope: Scope) -> list[str]:
        """The attributes that the update names at the top."""
        paths = [path for path, _ in [*self.sets, *self.adds, *self.deletes]] + self.removes
        return [str(path(scope)[0]) for path in paths]

    def apply(self, scope: Scope) -> Item:
        """The item after the update; all operands see the item before it."""
        after: Item = _copy(scope.item)
        values = [(path(scope), _present(operand(scope))) for path, operand in self.sets]
        for path, value in values:
            _put(after, path, value)
        for path_of, operand in self.adds:
            path = path_of(scope)
            _put(after, path, _added(_find(scope.item, path), _present(operand(scope))))
        for path_of, operand in self.deletes:
            path = path_of(scope)
            rest = _without(_find(scope.item, path), _present(operand(scope)))
            if rest is None:
                _drop(after, path)
            else:
                _put(after, path, rest)
        for path in sorted((path_of(scope) for path_of in self.removes), key=str, reverse=True):
            _drop(after, path)  # higher list indexes first
        return after


@lru_cache(maxsize=1000)
def condition(text: str) -> Condition:
    """Parse a condition, key condition or filter.  Raises AwsError."""
    parser = _Parser(text)
    found = parser.any_of()
    parser.expect_end()
    return found


@lru_cache(maxsize=1000)
def update(text: str) -> Update:
    """Parse an UpdateExpression.  Raises AwsError."""
    parser = _Parser(text)
    found = Update()
    seen: set[str] = set()
    while not parser.at_end():
        clause = parser.take().upper()
        if clause in seen:
            raise invalid(f'Invalid UpdateExpression: The "{clause}" section can only be used once')
        seen.add(clause)
        _parse_clause(parser, clause, found)
    return found


def projection(text: str, scope: Scope, item: Item) -> Item:
    """The attributes of ``item`` that a ProjectionExpression names at the top."""
    names = [scope.name(part.strip().partition(".")[0].partition("[")[0]) for part in text.split(",")]
    return {name: item[name] for name in names if name in item}


def invalid(message: str) -> AwsError:
    """A ValidationException."""
    return AwsError("ValidationException", message)


def _parse_clause(parser: "_Parser", clause: str, found: Update) -> None:
    while True:
        path = parser.path()
        match clause:
            case "SET":
                parser.expect("=")
                found.sets.append((path, parser.sum()))
            case "REMOVE":
                found.removes.append(path)
            case "ADD":
                found.adds.append((path, parser.operand()))
            case "DELETE":
                found.deletes.append((path, parser.operand()))
            case _:
                raise invalid(f'Invalid UpdateExpression: Syntax error; token: "{clause}"')
        if not parser.accept(","):
            return


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = []
        position = 0
        stripped = text.rstrip()
        while position < len(stripped):
            found = _TOKEN.match(stripped, position)
            if found is None:
                raise invalid(f'Invalid expression: Syntax error; token: "{stripped[position]}", near: "{text}"')
            self._tokens.append(found[1] or found[2])
            position = found.end()
        if not self._tokens:
            raise invalid("Invalid expression: The expression can not be empty;")
        self._next = 0

    def at_end(self) -> bool:
        return self._next >= len(self._tokens)

    def peek(self, ahead: int = 0) -> str:
        index = self._next + ahead
        return self._tokens[index] if index < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        if not token:
            raise invalid(f'Invalid expression: Syntax error; token: "<EOF>", near: "{self._text}"')
        self._next += 1
        return token

    def accept(self, token: str) -> bool:
        if self.peek().upper() == token:
            self._next += 1
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise invalid(f'Invalid expression: Syntax error; token: "{self.peek() or "<EOF>"}", near: "{self._text}"')

    def expect_end(self) -> None:
        if not self.at_end():
            raise invalid(f'Invalid expression: Syntax error; token: "{self.peek()}", near: "{self._text}"')

    def any_of(self) -> Condition:
        parts = [self._all_of()]
        while self.accept("OR"):
            parts.append(self._all_of())
        return parts[0] if len(parts) == 1 else lambda scope: any(part(scope) for part in parts)

    def _all_of(self) -> Condition:
        parts = [self._negation()]
        while self.accept("AND"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else lambda scope: all(part(scope) for part in parts)

    def _negation(self) -> Condition:
        if self.accept("NOT"):
            inner = self._negation()
            return lambda scope: not inner(scope)
        if self.accept("("):
            inner = self.any_of()
            self.expect(")")
            return inner
        if self.peek(1) == "(" and self.peek() in _TESTS:
            return self._function()
        return self._comparison()

    def _function(self) -> Condition:
        name = self.take()
        self.expect("(")
        path = self.path()
        argument = self.operand() if self.accept(",") else None
        self.expect(")")
        test = _TESTS[name]
        return lambda scope: test(_find(scope.item, path(scope)), None if argument is None else argument(scope))

    def _comparison(self) -> Condition:
        left = self.operand()
        if self.accept("BETWEEN"):
            low = self.operand()
            self.expect("AND")
            high = self.operand()
            return lambda scope: _compare(left(scope), ">=", low(scope)) and _compare(left(scope), "<=", high(scope))
        if self.accept("IN"):
            self.expect("(")
            options = [self.operand()]
            while self.accept(","):
                options.append(self.operand())
            self.expect(")")
            return lambda scope: any(_compare(left(scope), "=", option(scope)) for option in options)
        sign = self.take()
        if sign not in _SIGNS:
            raise invalid(f'Invalid expression: Syntax error; token: "{sign}", near: "{self._text}"')
        right = self.operand()
        return lambda scope: _compare(left(scope), sign, right(scope))

    def sum(self) -> Operand:
        left = self.operand()
        sign = self.peek()
        if sign not in ("+", "-"):
            return left
        self.take()
        right = self.operand()
        return lambda scope: _arithmetic(_present(left(scope)), sign, _present(right(scope)))

    def operand(self) -> Operand:
        word = self.peek()
        if word.startswith(":"):
            self.take()
            return lambda scope: scope.value(word)
        if self.peek(1) != "(":
            path = self.path()
            return lambda scope: _find(scope.item, path(scope))
        self.take()
        self.expect("(")
        found = self._operand_function(word)
        self.expect(")")
        return found

    def _operand_function(self, name: str) -> Operand:
        if name == "size":
            path = self.path()
            return lambda scope: _size(_find(scope.item, path(scope)))
        if name == "if_not_exists":
            path = self.path()
            self.expect(",")
            default = self.operand()
            return lambda scope: _find(scope.item, path(scope)) or default(scope)
        if name == "list_append":
            first = self.operand()
            self.expect(",")
            second = self.operand()
            return lambda scope: {"L": [*_present(first(scope))["L"], *_present(second(scope))["L"]]}
        raise invalid(f"Invalid expression: Invalid function name; function: {name}")

    def path(self) -> PathOf:
        first = self.take()
        if not re.match("[#A-Za-z_]", first) or first.upper() in _WORDS:
            raise invalid(f'Invalid expression: Syntax error; token: "{first}", near: "{self._text}"')
        steps: list[Step] = [first]
        while True:
            if self.accept("."):
                steps.append(self.take())
            elif self.accept("["):
                steps.append(int(self.take()))
                self.expect("]")
            else:
                break
        return lambda scope: [step if isinstance(step, int) else scope.name(step) for step in steps]


def _find(item: Item, path: Sequence[Step]) -> Value | None:
    found: Value | None = {"M": item}
    for step in path:
        if isinstance(step, int):
            elements = cast("list[Value]", (found or {}).get("L", []))
            found = elements[step] if step < len(elements) else None
        else:
            found = cast("Item", (found or {}).get("M", {})).get(step)
        if found is None:
            return None
    return found


def _container(item: Item, path: Sequence[Step]) -> Item | list[Value]:
    """What holds the last step of ``path``."""
    parent = _find(item, path[:-1]) if len(path) > 1 else {"M": item}
    inner: Any = None if parent is None else parent.get("L" if isinstance(path[-1], int) else "M")
    if inner is None:
        raise invalid("The document path provided in the update expression is invalid for update")
    return cast("Item | list[Value]", inner)


def _put(item: Item, path: Sequence[Step], value: Value) -> None:
    holder, last = _container(item, path), path[-1]
    if isinstance(holder, list):
        index = cast("int", last)
        if index < len(holder):
            holder[index] = value
        else:
            holder.append(value)
    else:
        holder[cast("str", last)] = value


def _drop(item: Item, path: Sequence[Step]) -> None:
    if len(path) > 1 and _find(item, path[:-1]) is None:
        raise invalid("The document path provided in the update expression is invalid for update")
    holder, last = _container(item, path), path[-1]
    if not isinstance(holder, list):
        holder.pop(cast("str", last), None)
    elif cast("int", last) < len(holder):
        del holder[cast("int", last)]


def _copy(item: Item) -> Item:
    """A copy down to the containers that an update may change."""
    copied: Item = {}
    for name, value in item.items():
        if "M" in value:
            copied[name] = {"M": _copy(value["M"])}
        elif "L" in value:
            copied[name] = {"L": list(_copy({str(i): one for i, one in enumerate(value["L"])}).values())}
        else:
            copied[name] = value
    return copied


def _present(value: Value | None) -> Value:
    if value is None:
        raise invalid("The provided expression refers to an attribute that does not exist in the item")
    return value


_SIGNS = frozenset({"=", "<>", "<", "<=", ">", ">="})
_ORDERED = frozenset({"S", "N", "B"})


def _compare(left: Value | None, sign: str, right: Value | None) -> bool:
    if left is None or right is None:
        return sign == "<>" and left is not right
    one, other = canon(left), canon(right)
    if sign == "=":
        return one == other
    if sign == "<>":
        return one != other
    if one[0] != other[0] or one[0] not in _ORDERED:
        return False
    low, high = one[1], other[1]
    if one[0] == "S":
        low, high = low.encode(), high.encode()
    results: dict[str, bool] = {"<": low < high, "<=": low <= high, ">": low > high, ">=": low >= high}
    return results[sign]


def _begins_with(value: Value | None, prefix: Value | None) -> bool:
    if value is None or prefix is None:
        return False
    one, other = canon(value), canon(prefix)
    return one[0] == other[0] and one[0] in ("S", "B") and bool(one[1].startswith(other[1]))


def _contains(value: Value | None, wanted: Value | None) -> bool:
    if value is None or wanted is None:
        return False
    one, other = canon(value), canon(wanted)
    if one[0] == "S":
        return other[0] == "S" and other[1] in one[1]
    if one[0] == "L":
        return other in one[1]
    return one[0] in ("SS", "NS", "BS") and one[0][0] == other[0] and other[1] in one[1]


_TESTS: dict[str, Callable[[Value | None, Value | None], bool]] = {
    "attribute_exists": lambda value, _: value is not None,
    "attribute_not_exists": lambda value, _: value is None,
    "attribute_type": lambda value, kind: value is not None and kind is not None and kind.get("S") in value,
    "begins_with": _begins_with,
    "contains": _contains,
}


def _size(value: Value | None) -> Value | None:
    if value is None:
        return None
    kind, content = next(iter(value.items()))
    return {"N": str(len(content) if kind in ("L", "M", "SS", "NS", "BS") else size_of(value))}


def _arithmetic(left: Value, sign: str, right: Value) -> Value:
    if "N" not in left or "N" not in right:
        raise invalid("An operand in the update expression has an incorrect data type")
    one, other = number(left["N"]), number(right["N"])
    return {"N": number_text(DIGITS.add(one, other) if sign == "+" else DIGITS.subtract(one, other))}


def _added(old: Value | None, more: Value) -> Value:
    if "N" in more:
        return _arithmetic(old or {"N": "0"}, "+", more)
    kind, content = next(iter(more.items()))
    if kind not in ("SS", "NS", "BS") or (old is not None and kind not in old):
        raise invalid("An operand in the update expression has an incorrect data type")
    present: list[str] = list(old[kind]) if old else []
    return {kind: present + [one for one in content if one not in present]}


def _without(old: Value | None, less: Value) -> Value | None:
    kind, content = next(iter(less.items()))
    if old is None:
        return None
    if kind not in old or kind not in ("SS", "NS", "BS"):
        raise invalid("An operand in the update expression has an incorrect data type")
    rest = [one for one in old[kind] if one not in content]
    return {kind: rest} if rest else None
