"""Ed25519 keys of published vectors, and of made-up test data: the same every time."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pytest_decisionos.trust.ed25519 import PrivateKey


def from_seed(seed):
    """The key of a 32-byte seed."""
    return PrivateKey(Ed25519PrivateKey.from_private_bytes(seed))
