"""DynamoDB by its JSON protocol: tables, items under conditions, queries, transactions."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from esm.sandbox.attributes import Item, Value, canon, size_of_item
from esm.sandbox.expressions import Scope, condition, invalid, projection, update
from esm.sandbox.table import Index, Table, place_of
from esm.sandbox.table_stream import TableStream
from esm.sandbox.wire import Answer, AwsError, Perform, operation
from esm.sandbox.world import World

PAGE_BYTES = 1024 * 1024


class Attribute(msgspec.Struct, rename="pascal"):
    """An attribute of a key and its type."""

    attribute_name: str
    attribute_type: str


class KeyPart(msgspec.Struct, rename="pascal"):
    """An attribute of a key schema."""

    attribute_name: str
    key_type: str


class StreamSpecification(msgspec.Struct, rename="pascal"):
    """Whether a table has a stream, and what its records hold."""

    stream_enabled: bool
    stream_view_type: str = "NEW_AND_OLD_IMAGES"


class IndexDefinition(msgspec.Struct, rename="pascal"):
    """A secondary index."""

    index_name: str
    key_schema: Sequence[KeyPart]


class OnTable(msgspec.Struct, rename="pascal"):
    """A call that names a table."""

    table_name: str


class CreateTable(OnTable, kw_only=True):
    """CreateTable."""

    key_schema: Sequence[KeyPart]
    attribute_definitions: Sequence[Attribute]
    stream_specification: StreamSpecification | None = None
    global_secondary_indexes: Sequence[IndexDefinition] = ()
    local_secondary_indexes: Sequence[IndexDefinition] = ()


class UpdateTable(OnTable):
    """UpdateTable."""

    stream_specification: StreamSpecification | None = None


class ListTables(msgspec.Struct, rename="pascal"):
    """ListTables."""

    exclusive_start_table_name: str = ""
    limit: int = 100


class TimeToLive(msgspec.Struct, rename="pascal"):
    """Which attribute tells when an item may go."""

    enabled: bool
    attribute_name: str


class UpdateTimeToLive(OnTable):
    """UpdateTimeToLive."""

    time_to_live_specification: TimeToLive


class Expressed(OnTable, kw_only=True):
    """A call with expressions."""

    condition_expression: str | None = None
    expression_attribute_names: Mapping[str, str] = {}
    expression_attribute_values: Mapping[str, Value] = {}
    return_values: str = "NONE"
    return_values_on_condition_check_failure: str = "NONE"

    def scope(self, *expressions: str | None) -> Scope:
        """The scope of the call; AwsError for placeholders that none of ``expressions`` uses."""
        scope = Scope(self.expression_attribute_names, self.expression_attribute_values)
        for expression in expressions:
            scope.uses(expression)
        scope.check_all_used()
        return scope


class PutItem(Expressed, kw_only=True):
    """PutItem."""

    item: Item


class DeleteItem(Expressed, kw_only=True):
    """DeleteItem, and the ConditionCheck of a transaction."""

    key: Item


class UpdateItem(Expressed, kw_only=True):
    """UpdateItem."""

    key: Item
    update_expression: str | None = None


class GetItem(Expressed, kw_only=True):
    """GetItem."""

    key: Item
    projection_expression: str | None = None


class Scan(Expressed, kw_only=True):
    """Scan."""

    filter_expression: str | None = None
    projection_expression: str | None = None
    index_name: str | None = None
    limit: int = 1_000_000
    exclusive_start_key: Item | None = None
    select: str = "ALL_ATTRIBUTES"


class Query(Scan, kw_only=True):
    """Query."""

    key_condition_expression: str
    scan_index_forward: bool = True


class KeysAndAttributes(msgspec.Struct, rename="pascal"):
    """The keys that BatchGetItem asks of one table."""

    keys: Sequence[Item]


class BatchGetItem(msgspec.Struct, rename="pascal"):
    """BatchGetItem."""

    request_items: Mapping[str, KeysAndAttributes]


class PutRequest(msgspec.Struct, rename="pascal"):
    """A put of BatchWriteItem."""

    item: Item


class DeleteRequest(msgspec.Struct, rename="pascal"):
    """A deletion of BatchWriteItem."""

    key: Item


class WriteRequest(msgspec.Struct, rename="pascal"):
    """A write of BatchWriteItem."""

    put_request: PutRequest | None = None
    delete_request: DeleteRequest | None = None


class BatchWriteItem(msgspec.Struct, rename="pascal"):
    """BatchWriteItem."""

    request_items: Mapping[str, Sequence[WriteRequest]]


class TransactItem(msgspec.Struct, rename="pascal"):
    """One action of a transaction."""

    put: PutItem | None = None
    update: UpdateItem | None = None
    delete: DeleteItem | None = None
    condition_check: DeleteItem | None = None


class TransactWriteItems(msgspec.Struct, rename="pascal"):
    """TransactWriteItems."""

    transact_items: Sequence[TransactItem]


class Change(msgspec.Struct, frozen=True):
    """A write whose conditions are checked by ``make``: the item after it, from the one before."""

    table: Table
    key: Item
    make: Callable[[Item | None], Item | None]


class DynamoDb:
    """All tables of the sandbox."""

    name = "dynamodb"

    def __init__(self, world: World) -> None:
        self._world = world
        self._tables: dict[str, Table] = {}
        self._streams: list[TableStream] = []
        self.operations: Mapping[str, Perform] = _operations(self)

    # -- direct use

    def create_table(
        self, name: str, keys: Mapping[str, str] | None = None, *, stream: str | None = None, shards: int = 1
    ) -> Table:
        """Make a table, active at once; ``keys`` are names and types (default ``{"pk": "S"}``).

        ``stream`` is the view type of its stream (None: it has none), ``shards`` the number of open shards.
        """
        table = self._create(name, keys or {"pk": "S"}, ())
        if stream is not None:
            self._streams.append(table.enable_stream(stream, shards=shards))
        return table

    def table(self, name: str) -> Table:
        """The table of this name or ARN.  Raises AwsError (ResourceNotFoundException)."""
        found = self._tables.get(name.rpartition("/")[2])
        if found is None:
            raise AwsError("ResourceNotFoundException", "Requested resource not found")
        return found

    def streams(self) -> list[TableStream]:
        """All streams, those of deleted tables included, in the order of their creation."""
        return list(self._streams)

    def _create(self, name: str, keys: Mapping[str, str], indexes: Sequence[Index]) -> Table:
        if name in self._tables:
            raise AwsError("ResourceInUseException", f"Table already exists: {name}")
        table = self._tables[name] = Table(name, keys, self._world, indexes)
        return table

    # -- tables

    def on_create(self, request: CreateTable) -> Answer:
        types = {one.attribute_name: one.attribute_type for one in request.attribute_definitions}
        keys = {part.attribute_name: types[part.attribute_name] for part in _sorted(request.key_schema)}
        defined = [*request.global_secondary_indexes, *request.local_secondary_indexes]
        indexes = [
            Index(one.index_name, tuple(part.attribute_name for part in _sorted(one.key_schema))) for one in defined
        ]
        table = self._create(request.table_name, keys, indexes)
        self._specify(table, request.stream_specification)
        return {"TableDescription": _described(table)}

    def on_update_table(self, request: UpdateTable) -> Answer:
        table = self.table(request.table_name)
        self._specify(table, request.stream_specification)
        return {"TableDescription": _described(table)}

    def _specify(self, table: Table, wanted: StreamSpecification | None) -> None:
        if wanted is None:
            return
        running = table.stream is not None and table.stream.enabled
        if wanted.stream_enabled and running:
            raise invalid(f"Table already has an enabled stream: TableName: {table.name}")
        if wanted.stream_enabled:
            self._streams.append(table.enable_stream(wanted.stream_view_type))
        elif table.stream is not None:
            table.stream.disable()

    def on_describe(self, request: OnTable) -> Answer:
        return {"Table": _described(self.table(request.table_name))}

    def on_delete_table(self, request: OnTable) -> Answer:
        table = self.table(request.table_name)
        if table.stream is not None:
            table.stream.disable()
        del self._tables[table.name]
        return {"TableDescription": {**_described(table), "TableStatus": "DELETING"}}

    def on_list(self, request: ListTables) -> Answer:
        names = sorted(name for name in self._tables if name > request.exclusive_start_table_name)
        answer: dict[str, object] = {"TableNames": names[: request.limit]}
        if len(names) > request.limit:
            answer["LastEvaluatedTableName"] = names[request.limit - 1]
        return answer

    def on_update_ttl(self, request: UpdateTimeToLive) -> Answer:
        wanted = request.time_to_live_specification
        self.table(request.table_name).ttl_attribute = wanted.attribute_name if wanted.enabled else None
        return {"TimeToLiveSpecification": {"Enabled": wanted.enabled, "AttributeName": wanted.attribute_name}}

    def on_describe_ttl(self, request: OnTable) -> Answer:
        name = self.table(request.table_name).ttl_attribute
        shown = (
            {"TimeToLiveStatus": "DISABLED"} if name is None else {"TimeToLiveStatus": "ENABLED", "AttributeName": name}
        )
        return {"TimeToLiveDescription": shown}

    # -- items

    def on_put(self, request: PutItem) -> Answer:
        old = _apply(self._put(request))
        return {"Attributes": old} if request.return_values == "ALL_OLD" and old is not None else {}

    def on_delete(self, request: DeleteItem) -> Answer:
        old = _apply(self._delete(request))
        return {"Attributes": old} if request.return_values == "ALL_OLD" and old is not None else {}

    def on_update(self, request: UpdateItem) -> Answer:
        change = self._update(request)
        old = _apply(change)
        new = change.table.get(request.key)
        touched: Iterable[str] = ()
        if request.return_values.startswith("UPDATED") and request.update_expression:
            touched = update(request.update_expression).touched(request.scope(*_texts(request)))
        match request.return_values:
            case "ALL_OLD":
                return {"Attributes": old} if old is not None else {}
            case "ALL_NEW":
                return {"Attributes": new}
            case "UPDATED_OLD":
                return {"Attributes": {name: old[name] for name in touched if old and name in old}} if old else {}
            case "UPDATED_NEW":
                return {"Attributes": {name: new[name] for name in touched if new and name in new}} if new else {}
            case _:
                return {}

    def _put(self, request: PutItem) -> Change:
        table = self.table(request.table_name)
        scope = request.scope(request.condition_expression)

        def make(old: Item | None) -> Item:
            _check(request, scope, old)
            return request.item

        return Change(table, table.key_of(request.item, whole=False), make)

    def _delete(self, request: DeleteItem, *, keep: bool = False) -> Change:
        scope = request.scope(request.condition_expression)

        def make(old: Item | None) -> Item | None:
            _check(request, scope, old)
            return old if keep else None

        return Change(self.table(request.table_name), request.key, make)

    def _update(self, request: UpdateItem) -> Change:
        table = self.table(request.table_name)
        scope = request.scope(*_texts(request))
        parsed = update(request.update_expression) if request.update_expression else None
        if parsed is not None:
            for name in parsed.touched(scope):
                if name in table.keys:
                    message = f"One or more parameter values were invalid: Cannot update attribute {name}."
                    raise invalid(f"{message} This attribute is part of the key")

        def make(old: Item | None) -> Item:
            _check(request, scope, old)
            scope.item = dict(request.key) if old is None else old
            return scope.item if parsed is None else parsed.apply(scope)

        return Change(table, request.key, make)

    def on_get(self, request: GetItem) -> Answer:
        scope = request.scope(request.projection_expression)
        item = self.table(request.table_name).get(request.key)
        if item is None:
            return {}
        text = request.projection_expression
        return {"Item": projection(text, scope, item) if text else item}

    def on_scan(self, request: Scan) -> Answer:
        table = self.table(request.table_name)
        scope = request.scope(request.filter_expression, request.projection_expression)
        names = table.indexes[request.index_name].keys if request.index_name else ()
        items = [item for _, item in table.in_scan_order() if all(name in item for name in names)]
        return _page(table, request, scope, items)

    def on_query(self, request: Query) -> Answer:
        table = self.table(request.table_name)
        texts = (request.key_condition_expression, request.filter_expression, request.projection_expression)
        scope = request.scope(*texts)
        keys = list(table.keys)
        if request.index_name is not None:
            if request.index_name not in table.indexes:
                raise invalid(f"The table does not have the specified index: {request.index_name}")
            keys = list(table.indexes[request.index_name].keys)
        wanted = condition(request.key_condition_expression)
        found: list[Item] = []
        for _, item in table.in_scan_order():
            scope.item = item
            if all(name in item for name in keys) and wanted(scope):
                found.append(item)
        order = (keys[1:] or keys[:1]) + [name for name in table.keys if name not in keys]
        found.sort(key=lambda item: [canon(item[name]) for name in order], reverse=not request.scan_index_forward)
        return _page(table, request, scope, found)

    def on_batch_get(self, request: BatchGetItem) -> Answer:
        responses: dict[str, list[Item]] = {}
        for name, wanted in request.request_items.items():
            table = self.table(name)
            found = [table.get(key) for key in wanted.keys]
            responses[name] = [item for item in found if item is not None]
        return {"Responses": responses, "UnprocessedKeys": {}}

    def on_batch_write(self, request: BatchWriteItem) -> Answer:
        if sum(len(writes) for writes in request.request_items.values()) > 25:
            raise invalid("Too many items requested for the BatchWriteItem call")
        for name, writes in request.request_items.items():
            table = self.table(name)
            for write in writes:
                if write.put_request is not None:
                    table.put(write.put_request.item)
                elif write.delete_request is not None:
                    table.delete(write.delete_request.key)
        return {"UnprocessedItems": {}}

    def on_transact(self, request: TransactWriteItems) -> Answer:
        changes = [self._of_transaction(one) for one in request.transact_items]
        reasons: list[dict[str, object]] = []
        for change in changes:
            try:
                change.make(change.table.get(change.key))
                reasons.append({"Code": "None"})
            except AwsError as error:
                reasons.append({"Code": error.code.removesuffix("Exception"), "Message": error.message, **error.fields})
        if any(reason["Code"] != "None" for reason in reasons):
            codes = ", ".join(str(reason["Code"]) for reason in reasons)
            message = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
            fields = {"Message": message, "CancellationReasons": reasons}
            raise AwsError("TransactionCanceledException", message, fields=fields)
        for change in changes:
            _apply(change)
        return {}

    def _of_transaction(self, one: TransactItem) -> Change:
        if one.put is not None:
            return self._put(one.put)
        if one.update is not None:
            return self._update(one.update)
        if one.delete is not None:
            return self._delete(one.delete)
        if one.condition_check is not None:
            return self._delete(one.condition_check, keep=True)
        raise invalid("An action of the transaction is empty.")


def _operations(tables: DynamoDb) -> Mapping[str, Perform]:
    return {
        "CreateTable": operation(CreateTable, tables.on_create),
        "UpdateTable": operation(UpdateTable, tables.on_update_table),
        "DescribeTable": operation(OnTable, tables.on_describe),
        "DeleteTable": operation(OnTable, tables.on_delete_table),
        "ListTables": operation(ListTables, tables.on_list),
        "UpdateTimeToLive": operation(UpdateTimeToLive, tables.on_update_ttl),
        "DescribeTimeToLive": operation(OnTable, tables.on_describe_ttl),
        "PutItem": operation(PutItem, tables.on_put),
        "GetItem": operation(GetItem, tables.on_get),
        "UpdateItem": operation(UpdateItem, tables.on_update),
        "DeleteItem": operation(DeleteItem, tables.on_delete),
        "Scan": operation(Scan, tables.on_scan),
        "Query": operation(Query, tables.on_query),
        "BatchGetItem": operation(BatchGetItem, tables.on_batch_get),
        "BatchWriteItem": operation(BatchWriteItem, tables.on_batch_write),
        "TransactWriteItems": operation(TransactWriteItems, tables.on_transact),
    }


def _sorted(schema: Sequence[KeyPart]) -> list[KeyPart]:
    return sorted(schema, key=lambda part: part.key_type)  # HASH before RANGE


def _texts(request: UpdateItem) -> tuple[str | None, str | None]:
    return request.update_expression, request.condition_expression


def _apply(change: Change) -> Item | None:
    return change.table.write(change.key, change.make)


def _check(request: Expressed, scope: Scope, old: Item | None) -> None:
    """Raises AwsError (ConditionalCheckFailedException) unless the condition of ``request`` holds for ``old``."""
    if not request.condition_expression:
        return
    wanted = condition(request.condition_expression)
    scope.item = old or {}
    if wanted(scope):
        return
    shown = request.return_values_on_condition_check_failure == "ALL_OLD" and old is not None
    message = "The conditional request failed"
    raise AwsError("ConditionalCheckFailedException", message, fields={"Item": old} if shown else None)


def _page(table: Table, request: Scan, scope: Scope, items: Sequence[Item]) -> Answer:
    """The page of ``items`` after the start key: up to the limit and 1 MB, counted before the filter."""
    begin = _resumed(table, request, items)
    page: list[Item] = []
    size = 0
    for item in items[begin : begin + request.limit]:
        page.append(item)
        size += size_of_item(item)
        if size > PAGE_BYTES:
            break
    shown = page
    if request.filter_expression:
        wanted = condition(request.filter_expression)
        shown = list[Item]()
        for item in page:
            scope.item = item
            if wanted(scope):
                shown.append(item)
    answer: dict[str, object] = {"Count": len(shown), "ScannedCount": len(page)}
    if request.select != "COUNT":
        text = request.projection_expression
        answer["Items"] = [projection(text, scope, item) for item in shown] if text else shown
    if page and begin + len(page) < len(items):
        names = [*table.keys, *(table.indexes[request.index_name].keys if request.index_name else ())]
        answer["LastEvaluatedKey"] = {name: page[-1][name] for name in names}
    return answer


def _resumed(table: Table, request: Scan, items: Sequence[Item]) -> int:
    """The index at which a listing goes on after its start key, whose item may be gone."""
    if request.exclusive_start_key is None:
        return 0
    start = table.canonical(request.exclusive_start_key)
    keys = [table.canonical(item) for item in items]
    if start in keys:
        return keys.index(start) + 1
    if isinstance(request, Query):
        forward = request.scan_index_forward
        later = (index for index, key in enumerate(keys) if (key > start if forward else key < start))
    else:
        later = (index for index, key in enumerate(keys) if place_of(key) > place_of(start))
    return next(later, len(keys))


def _described(table: Table) -> dict[str, object]:
    described: dict[str, object] = {
        "TableName": table.name,
        "TableArn": table.arn,
        "TableId": table.identity,
        "TableStatus": "ACTIVE",
        "CreationDateTime": table.created_at,
        "ItemCount": len(table),
        "TableSizeBytes": 0,
        "KeySchema": [
            {"AttributeName": name, "KeyType": kind} for name, kind in zip(table.keys, ("HASH", "RANGE"), strict=False)
        ],
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": kind} for name, kind in table.keys.items()],
        "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
        "ProvisionedThroughput": {"ReadCapacityUnits": 0, "WriteCapacityUnits": 0, "NumberOfDecreasesToday": 0},
    }
    if table.indexes:
        described["GlobalSecondaryIndexes"] = [
            {"IndexName": index.name, "IndexStatus": "ACTIVE"} for index in table.indexes.values()
        ]
    if table.stream is not None:
        described["LatestStreamArn"] = table.stream.arn
        described["LatestStreamLabel"] = table.stream.label
        if table.stream.enabled:
            described["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": table.stream.view}
    return described
