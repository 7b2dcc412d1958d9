import tempfile

import lancedb
import pyarrow as pa


def floats(documents, ids, queries, count):
    return found(pa.float32(), "dot", documents, ids, queries, count)


def half_floats(documents, ids, queries, count):
    return found(pa.float16(), "cosine", documents, ids, queries, count)


def bits(documents, ids, queries, count):
    return found(pa.uint8(), "hamming", documents, ids, queries, count)


def found(kind, metric, documents, ids, queries, count):
    values = pa.array(documents.ravel(), kind)
    vectors = pa.FixedSizeListArray.from_arrays(values, documents.shape[1])
    with tempfile.TemporaryDirectory() as folder:
        rows = pa.table({"id": ids, "vector": vectors})
        table = lancedb.connect(folder).create_table("vectors", rows)
        search = [table.search(query, query_type="vector").distance_type(metric).limit(count) for query in queries]
        return [each.select(["id", "_distance"]).to_arrow()["id"].to_pylist() for each in search]
