"""Amazon resource names, taken apart once and then compared by their parts."""

from msgspec import Struct


class Arn(Struct, frozen=True):
    """``arn:partition:service:region:account:resource``; region and account are empty where a service has none (S3)."""

    partition: str
    """``aws``, ``aws-cn``, ``aws-us-gov``."""
    service: str
    """``sqs``, ``kinesis``, ``dynamodb``, ``lambda``."""
    region: str
    account: str
    resource: str
    """The rest, colons and slashes included: ``orders``, ``stream/clicks``, ``function:tally:PROD``."""

    @classmethod
    def parse(cls, text: str) -> "Arn":
        """The parts of ``text``.  Raises ValueError with a sentence for anything that is no ARN."""
        parts = text.split(":", 5)
        if len(parts) < 6 or parts[0] != "arn":
            raise ValueError("expected an ARN, arn:partition:service:region:account:resource")
        _, partition, service, region, account, resource = parts
        for name, part in (("partition", partition), ("service", service), ("resource", resource)):
            if not part or part != part.strip():
                raise ValueError(f"an ARN with a {name} was expected, arn:partition:service:region:account:resource")
        return cls(partition, service, region, account, resource)

    def __str__(self) -> str:
        return f"arn:{self.partition}:{self.service}:{self.region}:{self.account}:{self.resource}"

    @property
    def name(self) -> str:
        """What people call it: the queue, stream, table or function, without kind, label or qualifier.

        ``orders`` of a queue, ``clicks`` of ``stream/clicks``, ``carts`` of ``table/carts/stream/2026-…``,
        ``tally`` of ``function:tally:PROD``.
        """
        for mark in ("/", ":"):
            kind, found, rest = self.resource.partition(mark)
            if found and kind.isalpha():
                return rest.split(mark)[0]
        return self.resource
