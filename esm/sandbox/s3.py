"""S3, path style: put, get, head, delete, list objects."""

import base64
import datetime
import hashlib
from collections.abc import Mapping
from urllib.parse import quote
from xml.sax.saxutils import escape

import msgspec

from esm.sandbox.wire import AwsError, Exchange, Reply
from esm.sandbox.world import World

_XML = {"Content-Type": "application/xml"}
_TIME = "%Y-%m-%dT%H:%M:%S.000Z"


class Stored(msgspec.Struct, frozen=True):
    """An object: its bytes, the quoted MD5, when it was put (epoch seconds), its headers."""

    body: bytes
    etag: str
    at: float
    content_type: str
    metadata: Mapping[str, str]


class S3:
    """All buckets of the sandbox."""

    name = "s3"

    def __init__(self, world: World) -> None:
        self._world = world
        self._buckets: dict[str, dict[str, Stored]] = {}

    def create_bucket(self, name: str) -> dict[str, Stored]:
        """Make a bucket, or answer the one that exists: its objects by key."""
        return self._buckets.setdefault(name, {})

    def bucket(self, name: str) -> dict[str, Stored]:
        """The objects of a bucket by key.  Raises AwsError (NoSuchBucket)."""
        found = self._buckets.get(name)
        if found is None:
            raise AwsError("NoSuchBucket", "The specified bucket does not exist", 404)
        return found

    def exchange(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Exchange:
        """The call of an HTTP request that belongs to no other service; ``path`` is decoded."""
        bucket, _, key = path.lstrip("/").partition("/")
        operation = _operation(method, bool(key))

        async def perform(body: bytes) -> Reply:
            match operation:
                case "PutObject":
                    return self._put(bucket, key, headers, body)
                case "GetObject" | "HeadObject":
                    return self._get(bucket, key)
                case "DeleteObject":
                    self.bucket(bucket).pop(key, None)
                    return Reply(204, b"", {})
                case "CreateBucket":
                    self.create_bucket(bucket)
                    return Reply(200, b"", {"Location": f"/{bucket}"})
                case "HeadBucket":
                    self.bucket(bucket)
                    return Reply(200, b"", {})
                case "ListObjectsV2":
                    return self._list(bucket, query)
                case _:
                    raise AwsError("MethodNotAllowed", f"The sandbox does not know {method} {path}.", 405)

        def refuse(error: AwsError) -> Reply:
            shown = f"<Code>{error.code}</Code><Message>{escape(error.message)}</Message>"
            text = b"" if method == "HEAD" else f"<Error>{shown}</Error>".encode()
            return Reply(error.status, text, _XML | dict(error.headers))

        return Exchange(f"s3:{operation}", body, perform, refuse, f"{bucket}/{key}" if key else bucket)

    def _put(self, bucket: str, key: str, headers: Mapping[str, str], body: bytes) -> Reply:
        objects = self.bucket(bucket)
        data = _unchunked(body) if "aws-chunked" in headers.get("Content-Encoding", "") else body
        digest = hashlib.md5(data, usedforsecurity=False)
        expected = headers.get("Content-MD5")
        if expected is not None and base64.b64decode(expected) != digest.digest():
            raise AwsError("BadDigest", "The Content-MD5 you specified did not match what we received.")
        if headers.get("If-None-Match") == "*" and key in objects:
            message = "At least one of the pre-conditions you specified did not hold"
            raise AwsError("PreconditionFailed", message, 412)
        metadata = {
            name.lower().removeprefix("x-amz-meta-"): value
            for name, value in headers.items()
            if name.lower().startswith("x-amz-meta-")
        }
        etag = f'"{digest.hexdigest()}"'
        content_type = headers.get("Content-Type", "binary/octet-stream")
        objects[key] = Stored(data, etag, self._world.clock.now(), content_type, metadata)
        return Reply(200, b"", {"ETag": etag})

    def _get(self, bucket: str, key: str) -> Reply:
        found = self.bucket(bucket).get(key)
        if found is None:
            raise AwsError("NoSuchKey", "The specified key does not exist.", 404)
        moment = datetime.datetime.fromtimestamp(found.at, datetime.UTC)
        headers = {
            "ETag": found.etag,
            "Content-Type": found.content_type,
            "Last-Modified": moment.strftime("%a, %d %b %Y %H:%M:%S GMT"),
            **{f"x-amz-meta-{name}": value for name, value in found.metadata.items()},
        }
        return Reply(200, found.body, headers)  # of a HEAD request the server sends the length alone

    def _list(self, bucket: str, query: Mapping[str, str]) -> Reply:
        prefix = query.get("prefix", "")
        after = query.get("continuation-token", query.get("start-after", ""))
        limit = int(query.get("max-keys", "1000"))
        objects = self.bucket(bucket)
        keys = sorted(key for key in objects if key.startswith(prefix) and key > after)
        page = keys[:limit]
        encode = quote if query.get("encoding-type") == "url" else escape
        rows = "".join(_row(encode(key), objects[key]) for key in page)
        more = len(keys) > limit
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more and page else ""
        kind = "<EncodingType>url</EncodingType>" if "encoding-type" in query else ""
        head = f"<Name>{bucket}</Name><Prefix>{encode(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
        tail = f"<MaxKeys>{limit}</MaxKeys>{kind}<IsTruncated>{str(more).lower()}</IsTruncated>{token}"
        return Reply(200, f"<ListBucketResult>{head}{tail}{rows}</ListBucketResult>".encode(), _XML)


def _operation(method: str, has_key: bool) -> str:
    with_key = {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}
    without = {"PUT": "CreateBucket", "GET": "ListObjectsV2", "HEAD": "HeadBucket"}
    return (with_key if has_key else without).get(method, "Unknown")


def _row(key: str, stored: Stored) -> str:
    moment = datetime.datetime.fromtimestamp(stored.at, datetime.UTC).strftime(_TIME)
    return (
        f"<Contents><Key>{key}</Key><LastModified>{moment}</LastModified><ETag>{escape(stored.etag)}</ETag>"
        f"<Size>{len(stored.body)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


def _unchunked(body: bytes) -> bytes:
    """The data of an ``aws-chunked`` body: chunks of ``size;extensions CRLF data CRLF``, a chunk of 0, trailers."""
    data = bytearray()
    while body:
        line, _, body = body.partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            break
        data += body[:size]
        body = body[size + 2 :]
    return bytes(data)
