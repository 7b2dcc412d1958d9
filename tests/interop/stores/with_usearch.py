import numpy as np
from usearch.index import Index


def floats(documents, ids, queries, count):
    return found(Index(ndim=documents.shape[1], metric="ip", dtype="f32"), documents, ids, queries, count)


def half_floats(documents, ids, queries, count):
    return found(Index(ndim=documents.shape[1], metric="ip", dtype="f16"), documents, ids, queries, count)


def signed_bytes(documents, ids, queries, count):
    return found(Index(ndim=documents.shape[1], metric="ip", dtype="i8"), documents, ids, queries, count)


def signed_bytes_by_cosine(documents, ids, queries, count):
    return found(Index(ndim=documents.shape[1], metric="cos", dtype="i8"), documents, ids, queries, count)


def bits(documents, ids, queries, count):
    return found(Index(ndim=8 * documents.shape[1], metric="hamming", dtype="b1"), documents, ids, queries, count)


def found(index, documents, ids, queries, count):
    index.add(np.array(ids, np.uint64), documents)  # ids of 0 and above
    return index.search(queries, count, exact=True).keys.tolist()  # False by default: a search of the graph
