from qdrant_client import QdrantClient
from qdrant_client.models import Datatype, Distance, PointStruct, VectorParams


def floats(documents, ids, queries, count):
    return found(Distance.DOT, Datatype.FLOAT32, documents, ids, queries, count)


def half_floats(documents, ids, queries, count):
    return found(Distance.DOT, Datatype.FLOAT16, documents, ids, queries, count)


def unsigned_bytes(documents, ids, queries, count):
    return found(Distance.EUCLID, Datatype.UINT8, documents, ids, queries, count)


def found(distance, kind, documents, ids, queries, count):
    client = QdrantClient(":memory:")
    parameters = VectorParams(size=documents.shape[1], distance=distance, datatype=kind)
    client.create_collection("vectors", vectors_config=parameters)
    client.upsert(
        "vectors", [PointStruct(id=key, vector=code.tolist()) for key, code in zip(ids, documents, strict=True)]
    )
    results = [client.query_points("vectors", query=code.tolist(), limit=count) for code in queries]
    return [[point.id for point in result.points] for result in results]
