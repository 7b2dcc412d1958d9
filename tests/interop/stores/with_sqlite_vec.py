import apsw  # or sqlite3, where Python was built with loadable extensions
import sqlite_vec


def floats(documents, ids, queries, count):
    column = f"float[{documents.shape[1]}] distance_metric=cosine"
    return found(column, "?", documents, ids, queries, count)


def signed_bytes(documents, ids, queries, count):
    return found(f"int8[{documents.shape[1]}] distance_metric=L2", "vec_int8(?)", documents, ids, queries, count)


def signed_bytes_by_cosine(documents, ids, queries, count):
    return found(f"int8[{documents.shape[1]}] distance_metric=cosine", "vec_int8(?)", documents, ids, queries, count)


def bits(documents, ids, queries, count):
    return found(f"bit[{8 * documents.shape[1]}]", "vec_bit(?)", documents, ids, queries, count)


def found(column, value, documents, ids, queries, count):
    database = apsw.Connection(":memory:")
    database.enable_load_extension(True)
    database.load_extension(sqlite_vec.loadable_path())
    database.execute(f"CREATE VIRTUAL TABLE vectors USING vec0(id INTEGER PRIMARY KEY, code {column})")
    rows = ((int(key), code.tobytes()) for key, code in zip(ids, documents, strict=True))
    database.executemany(f"INSERT INTO vectors VALUES (?, {value})", rows)
    query = f"SELECT id FROM vectors WHERE code MATCH {value} AND k = ? ORDER BY distance"
    return [[key for (key,) in database.execute(query, (code.tobytes(), count))] for code in queries]
