import duckdb
import numpy as np
import pyarrow as pa


def floats(documents, ids, queries, count):
    score = f"array_inner_product(code, $query::FLOAT[{documents.shape[1]}])"
    return found(f"FLOAT[{documents.shape[1]}]", score, documents, ids, queries, count)


def signed_bytes(documents, ids, queries, count):
    wide = f"FLOAT[{documents.shape[1]}]"  # array functions take floats alone
    score = f"array_inner_product(code::{wide}, $query::{wide})"
    return found(f"TINYINT[{documents.shape[1]}]", score, documents, ids, queries, count)


def bits(documents, ids, queries, count):
    texts = [["".join(map(str, np.unpackbits(code))) for code in codes] for codes in (documents, queries)]
    return found("BIT", "-bit_count(xor(code, $query::BIT))", texts[0], ids, texts[1], count)


def found(kind, score, documents, ids, queries, count):
    database = duckdb.connect()
    database.register("rows", pa.table({"id": ids, "code": list(documents)}))
    database.execute(f"CREATE TABLE vectors AS SELECT id, code::{kind} AS code FROM rows")
    query = f"SELECT id FROM vectors ORDER BY {score} DESC, id LIMIT {count}"
    values = (code if isinstance(code, str) else code.tolist() for code in queries)
    results = [database.execute(query, {"query": value}).fetchall() for value in values]
    return [[key for (key,) in result] for result in results]
