"""A gRPC inference router: serves every version of a model and chooses between them."""

__version__ = "0.1.0"
