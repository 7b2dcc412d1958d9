import hashlib
import uuid

NAMESPACE = uuid.UUID("6f1e54a5-0b1c-4f0e-9a53-0d1c2c0f6a77")  # any constant; another one gives other ids


def uuid_id(text):
    """For Qdrant, Weaviate and Postgres."""
    return str(uuid.uuid5(NAMESPACE, text))


def int64_id(text):
    """For faiss, usearch, sqlite-vec and DuckDB: 0 to 2**63 - 1."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
