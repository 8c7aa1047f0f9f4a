"""``torch._dynamo.exc``."""

from flambeau.capture.errors import InvalidBackend, TorchDynamoException, Unsupported

__all__ = ["InvalidBackend", "TorchDynamoException", "Unsupported"]
