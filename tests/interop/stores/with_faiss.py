import faiss
import numpy as np


def flat(documents, ids, queries, count):
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(documents.shape[1]))
    return found(index, documents.astype(np.float32), ids, queries.astype(np.float32), count)


def signed_bytes(documents, ids, queries, count):
    kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
    index = faiss.IndexScalarQuantizer(documents.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    return found(faiss.IndexIDMap2(index), documents.astype(np.float32), ids, queries.astype(np.float32), count)


def unsigned_bytes(documents, ids, queries, count):
    index = faiss.IndexScalarQuantizer(documents.shape[1], faiss.ScalarQuantizer.QT_8bit_direct, faiss.METRIC_L2)
    return found(faiss.IndexIDMap2(index), documents.astype(np.float32), ids, queries.astype(np.float32), count)


def bits(documents, ids, queries, count):
    index = faiss.IndexBinaryIDMap2(faiss.IndexBinaryFlat(8 * documents.shape[1]))
    return found(index, documents, ids, queries, count)


def found(index, documents, ids, queries, count):
    index.add_with_ids(documents, np.array(ids, np.int64))  # no other type of integer
    return index.search(queries, count)[1].tolist()
