"""Ways to keep our vectors in a store: precision and metric, and the function that does it."""

import importlib
from typing import NamedTuple


class Way(NamedTuple):
    """One way.

    Attributes:
        store: name of a module `with_<store>`.
        kind: type of index or column, as the store calls it.
        precision: of `moembed.quantize_embeddings`.
        metric: what the store compares by.
        function: of the module: takes documents, their ids, queries and a count, and returns ids for each query, best first.
    """

    store: str
    kind: str
    precision: str
    metric: str
    function: str

    def search(self, documents, ids, queries, count):
        module = importlib.import_module(f"with_{self.store}")
        return getattr(module, self.function)(documents, ids, queries, count)


WAYS = (
    Way("faiss", "`IndexFlatIP`", "float32", "inner product", "flat"),
    Way("faiss", "`QT_8bit_direct_signed`", "int8", "inner product", "signed_bytes"),
    Way("faiss", "`QT_8bit_direct`", "uint8", "Euclidean", "unsigned_bytes"),
    Way("faiss", "`IndexBinaryFlat`", "ubinary", "Hamming", "bits"),
    Way("usearch", '`dtype="f32"`', "float32", "`ip`", "floats"),
    Way("usearch", '`dtype="f16"`', "float16", "`ip`", "half_floats"),
    Way("usearch", '`dtype="i8"`', "int8", "`ip`", "signed_bytes"),
    Way("usearch", '`dtype="i8"`', "int8", "`cos`", "signed_bytes_by_cosine"),
    Way("usearch", '`dtype="b1"`', "ubinary", "`hamming`", "bits"),
    Way("sqlite_vec", "`float[384]`", "float32", "`cosine`", "floats"),
    Way("sqlite_vec", "`int8[384]`", "int8", "`L2`", "signed_bytes"),
    Way("sqlite_vec", "`int8[384]`", "int8", "`cosine`", "signed_bytes_by_cosine"),
    Way("sqlite_vec", "`bit[384]`", "ubinary", "Hamming", "bits"),
    Way("lancedb", "`float32`", "float32", "`dot`", "floats"),
    Way("lancedb", "`float16`", "float16", "`cosine`", "half_floats"),
    Way("lancedb", "`uint8`", "ubinary", "`hamming`", "bits"),
    Way("duckdb", "`FLOAT[384]`", "float32", "`array_inner_product`", "floats"),
    Way("duckdb", "`TINYINT[384]`", "int8", "`array_inner_product`", "signed_bytes"),
    Way("duckdb", "`BIT`", "ubinary", "`bit_count(xor())`", "bits"),
    Way("qdrant", "`FLOAT32`", "float32", "`DOT`", "floats"),
    Way("qdrant", "`FLOAT16`", "float16", "`DOT`", "half_floats"),
    Way("qdrant", "`UINT8`", "uint8", "`EUCLID`", "unsigned_bytes"),
    Way("pgvector", "`vector(384)`", "float32", "`<#>`", "floats"),
    Way("pgvector", "`halfvec(384)`", "float16", "`<#>`", "half_floats"),
    Way("pgvector", "`bit(384)`", "ubinary", "`<~>`", "bits"),
)
