"""``esm``: event source mappings as a worker that runs anywhere.

It polls SQS, Kinesis, DynamoDB Streams and Kafka, gathers records into batches and invokes a target with each batch,
with the semantics of AWS Lambda's event source mappings.  What runs on import is nothing: rooms import each other
downwards only, from ``cli`` to ``domain``.
"""

__version__ = "0.1.0"
