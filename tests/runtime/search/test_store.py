"""The vector store on damaged databases: what it returns is right, or nothing."""

import contextlib
import os
import random
import sqlite3

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moembed.search.store import VectorStore

DIM = 5


def entries_of(seed: int, count: int):
    """Random windows, as the embedder gives them: one or several a text."""
    random_numbers = np.random.default_rng(seed)
    return [
        (
            random_numbers.bytes(32),
            [
                (start, start + 9, random_numbers.standard_normal(DIM, np.float32))
                for start in range(random_numbers.integers(1, 4))
            ],
        )
        for _ in range(count)
    ]


ENTRIES = entries_of(1, 40)
OTHERS = entries_of(2, 3)


def same(found, expected) -> bool:
    return len(found) == len(expected) and all(
        (a[0], a[1], a[2].tobytes()) == (b[0], b[1], b[2].tobytes()) for a, b in zip(found, expected, strict=True)
    )


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> bytes:
    """The bytes of a database that holds ENTRIES."""
    path = tmp_path_factory.mktemp("sound") / "search.sqlite3"
    with VectorStore(path, log=pytest.fail) as store:
        store.write(ENTRIES)
    return path.read_bytes()


# -- ways to damage a database: each takes the path and a source of random numbers -------------------------------------


def flip_bits(path, rng):
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 40)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncate(path, rng):
    os.truncate(path, rng.randrange(path.stat().st_size))


def zero_a_page(path, rng):
    content = bytearray(path.read_bytes())
    page = 4096 * rng.randrange(len(content) // 4096)
    content[page : page + 4096] = bytes(4096)
    path.write_bytes(content)


def swap_pages(path, rng):
    content = path.read_bytes()
    pages = [content[start : start + 4096] for start in range(0, len(content), 4096)]
    rng.shuffle(pages)
    path.write_bytes(b"".join(pages))


def write_something_else(path, rng):
    path.write_bytes(rng.choice([b"", b"\0", b"notes to self\n" * 300, rng.randbytes(9000), b"SQLite format 3\0" * 99]))


def leave_a_journal(path, rng):
    path.with_name(path.name + rng.choice(["-journal", "-wal", "-shm"])).write_bytes(rng.randbytes(3000))


def edit_rows(path, rng):
    values = [
        b"", b"abc", b"abcd", bytes(16), "text", "caf\udce9".encode("utf-8", "surrogateescape").decode("latin-1"),
        2**63 - 1, -1, float("inf"), np.full(DIM, np.nan, np.float32).tobytes(), rng.randbytes(16 + 16 + 4 * DIM),
    ]  # fmt: skip
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        for (key,) in db.execute("SELECT key FROM texts").fetchall():
            what = rng.randrange(7)
            if what == 0:
                db.execute("UPDATE texts SET windows = ? WHERE key = ?", (rng.choice(values), key))
            elif what == 1:  # the windows of another text, whole
                db.execute("UPDATE texts SET windows = (SELECT windows FROM texts LIMIT 1) WHERE key = ?", (key,))
            elif what == 2:
                db.execute("UPDATE texts SET used = ? WHERE key = ?", (rng.choice(values), key))
            elif what == 3:
                db.execute("UPDATE texts SET windows = CAST(windows AS TEXT) WHERE key = ?", (key,))
            elif what == 4:  # a span, a component, a window too many
                (windows,) = db.execute("SELECT windows FROM texts WHERE key = ?", (key,)).fetchone()
                start = 16 + rng.randrange(16 + 4 * DIM)
                changed = windows[:start] + b"\xff" + windows[start + 1 :] + rng.choice([b"", windows[16:]])
                with contextlib.suppress(sqlite3.Error):
                    db.execute("UPDATE texts SET windows = ? WHERE key = ?", (changed, key))


def change_the_schema(path, rng):
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(
            rng.choice(
                [
                    "DROP TABLE texts",
                    "ALTER TABLE texts RENAME TO other",
                    "ALTER TABLE texts ADD COLUMN more",
                    "CREATE TABLE windows (model TEXT, text BLOB)",
                    "CREATE TRIGGER t AFTER INSERT ON texts BEGIN DELETE FROM texts; END",
                    "PRAGMA user_version = 99",
                    "DROP TABLE texts; CREATE TABLE texts (key, windows, used);"
                    "INSERT INTO texts VALUES (NULL, NULL, NULL)",
                    "DROP TABLE texts; CREATE VIEW texts AS SELECT 1 AS key, 2 AS windows, 3 AS used",
                    "PRAGMA journal_mode = WAL; DELETE FROM texts",
                ]
            )
        )


DAMAGES = (
    flip_bits, truncate, zero_a_page, swap_pages, write_something_else, leave_a_journal, edit_rows, change_the_schema
)  # fmt: skip


def check_damaged(sound, path, damages, rng):
    """Entries of a damaged database are right or missing, and after a few runs everything is there again."""
    for old in path.parent.glob(path.name + "*"):
        old.unlink()
    path.write_bytes(sound)
    for damage in damages:
        with contextlib.suppress(
            sqlite3.Error, ValueError, IndexError, TypeError
        ):  # damaged already beyond this damage
            damage(path, rng)
    said, counts, wanted = [], [], ENTRIES + OTHERS
    while len(counts) < 6 and counts[-1:] != [len(wanted)]:
        with VectorStore(path, log=said.append) as store:
            known = store.read([key for key, _ in wanted], DIM)
            assert all(same(known[key], windows) for key, windows in wanted if key in known)
            store.write([entry for entry in wanted if entry[0] not in known])
        counts.append(len(known))
    assert counts[-1] == len(wanted), (said, [damage.__name__ for damage in damages])
    return counts[0]


def test_what_a_damaged_database_gives_is_right_or_nothing(sound, tmp_path):
    @given(st.lists(st.sampled_from(DAMAGES), min_size=1, max_size=3), st.integers(0, 2**32))
    @settings(max_examples=40, deadline=None)
    @example([flip_bits, flip_bits], 117328)  # rows that overlap: each was damaged again when the other was written
    def check(damages, seed):
        check_damaged(sound, tmp_path / "search.sqlite3", damages, random.Random(seed))

    check()


@pytest.mark.long
def test_many_damaged_databases(sound, tmp_path, count):
    for seed in range(50 * count):
        rng = random.Random(seed)
        check_damaged(sound, tmp_path / "search.sqlite3", rng.choices(DAMAGES, k=rng.randint(1, 3)), rng)


def test_each_damage_hurts(sound, tmp_path):
    """The property above would hold of damages that do nothing, too."""
    for damage in (flip_bits, truncate, zero_a_page, edit_rows, write_something_else, change_the_schema):
        kept = [check_damaged(sound, tmp_path / "search.sqlite3", [damage], random.Random(seed)) for seed in range(8)]
        assert min(kept) < len(ENTRIES), damage.__name__


@pytest.mark.parametrize("at", [18, 19])
def test_a_header_that_asks_for_a_newer_sqlite(sound, tmp_path, at):
    """SQLite itself would read the file, and refuse to write to it for ever."""
    path, said = tmp_path / "search.sqlite3", []
    path.write_bytes(sound[:at] + b"\x03" + sound[at + 1 :])
    with VectorStore(path, log=said.append) as store:
        assert store.read([key for key, _ in ENTRIES], DIM) == {}
        store.write(ENTRIES)
        assert len(store.read([key for key, _ in ENTRIES], DIM)) == len(ENTRIES)
    assert len(said) == 1
    assert "was damaged (its header is not that of a cache): it was replaced" in said[0]


def test_a_schema_that_is_not_text(sound, tmp_path):
    """sqlite3 itself fails to decode its message about it."""
    path = tmp_path / "search.sqlite3"
    path.write_bytes(sound.replace(b"textstexts", b"text\xc9text\xc9", 1))
    with contextlib.closing(sqlite3.connect(path)) as db, pytest.raises(UnicodeDecodeError):
        db.execute("SELECT * FROM sqlite_master")
    said = []
    with VectorStore(path, log=said.append) as store:
        assert store.read([key for key, _ in ENTRIES], DIM) == {}
    assert "it was replaced by a new one" in said[0]


def test_a_row_of_another_width_is_no_row(sound, tmp_path):
    path = tmp_path / "search.sqlite3"
    path.write_bytes(sound)
    with VectorStore(path, log=pytest.fail) as store:
        assert store.read([key for key, _ in ENTRIES], DIM + 1) == {}
        assert store.read([b"never heard of"], DIM) == {}


def test_what_nobody_asks_for_is_forgotten(sound, tmp_path):
    path = tmp_path / "search.sqlite3"
    path.write_bytes(sound)
    ((first, _), (second, _), *_) = ENTRIES
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE texts SET used = used - 89 WHERE key = ?", (first,))
        db.execute("UPDATE texts SET used = used - 200 WHERE key <> ?", (first,))
    with VectorStore(path, log=pytest.fail) as store:
        assert len(store.read([first, second], DIM)) == 2, "a day of use is no reason to embed again"
    with VectorStore(path, log=pytest.fail) as store:
        store.write(OTHERS)
        kept = store.read([key for key, _ in ENTRIES + OTHERS], DIM)
    assert set(kept) == {first, second, *(key for key, _ in OTHERS)}


# -- the command -------------------------------------------------------------------------------------------------------
