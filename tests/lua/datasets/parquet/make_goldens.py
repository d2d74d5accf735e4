#!/usr/bin/env python3
"""Write the Parquet files of this folder, and beside each its rows as JSON lines.
usage: python make_goldens.py   in an environment with pyarrow, pandas and datasets

The rows are those that pyarrow reads, with the values that `datasets` writes to JSON for them; the
script checks that against Dataset.to_json where that can hold them.
"""
import datetime as D
import decimal
import json
import math
import os
import random
import uuid
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

import tiny_parquet

warnings.simplefilter("ignore")
here = os.path.dirname(os.path.abspath(__file__))
EPOCH = D.datetime(1970, 1, 1)


def as_json(v):
    """What a value is in amlua's rows."""
    if isinstance(v, float):
        return v if math.isfinite(v) else None
    if isinstance(v, D.datetime):
        v = v.replace(tzinfo=None) if v.tzinfo is None else v.astimezone(D.timezone.utc).replace(tzinfo=None)
        return (v - EPOCH) // D.timedelta(milliseconds=1)
    if isinstance(v, D.date):
        return (v - EPOCH.date()).days * 86400000
    if isinstance(v, D.time):
        return v.isoformat()
    if isinstance(v, (decimal.Decimal, uuid.UUID)):
        return str(v)
    if isinstance(v, bytes):
        return v.decode()
    if isinstance(v, dict):
        return {k: as_json(x) for k, x in v.items()}
    if isinstance(v, (list, tuple)):
        return [as_json(x) for x in v]
    return v


def path(name):
    return os.path.join(here, name)


def write_rows(name, rows):
    with open(path(name + ".jsonl"), "w") as out:
        for row in rows:
            out.write(json.dumps(as_json(row), ensure_ascii=False) + "\n")


def rounded(v):
    if isinstance(v, float):
        return round(v, 9)
    if isinstance(v, dict):
        return {k: rounded(x) for k, x in v.items()}
    return [rounded(x) for x in v] if isinstance(v, list) else v


def check_against_datasets(name):
    out = path("check.jsonl")
    frame = pq.read_table(path(name + ".parquet")).to_pandas(integer_object_nulls=True)
    frame.to_json(out, orient="records", lines=True, double_precision=15)  # as JsonDatasetWriter does
    with open(out) as theirs, open(path(name + ".jsonl")) as ours:
        for a, b in zip(theirs, ours, strict=True):
            assert rounded(json.loads(a)) == rounded(json.loads(b)), (name, a, b)
    os.remove(out)


def write(name, table, check=True, **options):
    pq.write_table(table, path(name + ".parquet"), **options)
    write_rows(name, pq.read_table(path(name + ".parquet")).to_pylist())
    if check:
        check_against_datasets(name)


def chat_rows():
    rows = []
    for i in range(40):
        turns = [{"role": "user", "content": "Question %d?" % i}, {"role": "assistant", "content": "Answer é %d." % i}]
        rows.append({"id": "c%d" % i, "messages": turns * (i % 3) if i != 4 else None, "score": None if i % 5 == 0 else i / 3,
                     "tags": None if i % 7 == 3 else ["t%d" % (i % 4)] * (i % 4), "n": i * 1000003, "kept": i % 2 == 0})
    return rows


def squad_rows():
    return [{"id": "%08x" % (i * 2654435761 % 2**32), "title": "Lighthouse", "context": "The light of %d. " % i * (i % 4 + 1),
             "question": "Which light?", "answers": {"text": ["light"] * (i % 3), "answer_start": [4] * (i % 3)}}
            for i in range(30)]


def types_table():
    t = D.datetime(2024, 1, 2, 3, 4, 5, 678901)
    utc = D.timezone.utc
    columns = {
        "bool": pa.array([True, None, False]),
        "i8": pa.array([-128, None, 127], pa.int8()), "u8": pa.array([0, None, 255], pa.uint8()),
        "i16": pa.array([-32768, None, 1], pa.int16()), "u16": pa.array([65535, None, 1], pa.uint16()),
        "i32": pa.array([-2**31, None, 2**31 - 1], pa.int32()), "u32": pa.array([2**32 - 1, None, 1], pa.uint32()),
        "i64": pa.array([-2**53, None, 2**53], pa.int64()), "u64": pa.array([2**63, None, 1], pa.uint64()),
        "f16": pa.array([1.5, None, -2.0**-24], pa.float16()), "f32": pa.array([0.1, None, math.inf], pa.float32()),
        "f64": pa.array([0.1, None, math.nan]),
        "text": pa.array(["a\u0000b", None, "é😀"]), "large": pa.array(["", None, "x"], pa.large_string()),
        "bytes": pa.array([b"ab", None, b""]), "fixed": pa.array([b"abc", None, b"xyz"], pa.binary(3)),
        "word": pa.array(["one", None, "one"]).dictionary_encode(),
        "decimal": pa.array([decimal.Decimal("-123.450"), None, decimal.Decimal("0.001")], pa.decimal128(20, 3)),
        "small": pa.array([decimal.Decimal("-1.5"), None, decimal.Decimal("99.9")], pa.decimal128(5, 1)),
        "whole": pa.array([decimal.Decimal("-7"), None, decimal.Decimal("0")], pa.decimal128(9, 0)),
        "huge": pa.array([decimal.Decimal("-" + "9" * 70 + ".25"), None, decimal.Decimal("0.01")], pa.decimal256(76, 2)),
        "date": pa.array([t.date(), None, D.date(1960, 2, 3)]),
        "ms": pa.array([t.replace(microsecond=678000), None, D.datetime(1969, 12, 31, 23, 59, 59)], pa.timestamp("ms")),
        "us": pa.array([t, None, D.datetime(1969, 12, 31, 23, 59, 59, 999999)], pa.timestamp("us")),
        "zone": pa.array([t.replace(tzinfo=utc), None, t.replace(tzinfo=utc)], pa.timestamp("us", "Europe/Paris")),
        "ns": pa.array([1704164645678901000, None, -1000], pa.timestamp("ns")),
        "time_ms": pa.array([D.time(1, 2, 3), None, D.time(23, 59, 59, 999000)], pa.time32("ms")),
        "time_us": pa.array([D.time(1, 2, 3, 456), None, D.time(0, 0)], pa.time64("us")),
        "nothing": pa.array([None, None, None], pa.null()),
        "map": pa.array([[("a", 1), ("b", None)], None, []], pa.map_(pa.string(), pa.int64())),
        "struct": pa.array([{"x": 1, "y": {"z": ["q", None]}}, None, {"x": None, "y": None}],
                           pa.struct([("x", pa.int32()), ("y", pa.struct([("z", pa.list_(pa.string()))]))])),
        "deep": pa.array([[[[1], []], None, [[None, 2]]], None, []], pa.list_(pa.list_(pa.list_(pa.int32())))),
        "list3": pa.array([[1.0, 2.0, 3.0], None, [4.0, 5.0, 6.0]], pa.list_(pa.float32(), 3)),
        "dates": pa.array([[t.date(), None], None, []], pa.list_(pa.date32())),
    }
    return pa.table(columns)


def pages_table(n=90):
    """Rows whose lists reach over pages of a few values, columns with and without a dictionary."""
    draw = random.Random(7)
    lists = [None if i % 13 == 5 else [draw.choice([None, "w%d" % draw.randrange(9)]) for _ in range(draw.randrange(7))]
             for i in range(n)]
    pairs = [None if i % 11 == 3 else [{"k": i * 7 + k, "v": [i / 2, None][: k % 3]} for k in range(draw.randrange(4))]
             for i in range(n)]
    return pa.table({
        "number": pa.array([None if i % 9 == 0 else i for i in range(n)], pa.int64()),
        "same": pa.array(["constant"] * n), "words": pa.array(lists, pa.list_(pa.string())),
        "flag": pa.array([None if i % 10 == 1 else draw.random() < 0.5 for i in range(n)]),
        "pairs": pa.array(pairs, pa.list_(pa.struct([("k", pa.int32()), ("v", pa.list_(pa.float64()))]))),
        "empty": pa.array([None] * n, pa.string())})


def main():
    Dataset.from_list(chat_rows()).to_parquet(path("chat.parquet"))
    Dataset.from_list(squad_rows()).to_parquet(path("squad.parquet"), batch_size=8)
    for name in ("chat", "squad"):
        write_rows(name, pq.read_table(path(name + ".parquet")).to_pylist())
        check_against_datasets(name)

    types = types_table()
    write("types", types, version="2.6")
    ids = pa.array([uuid.UUID(int=2**120 + 5).bytes, None], pa.binary(16)).cast(pa.uuid())
    write("uuid", pa.table({"id": ids}), check=False)
    write("int96", types.select(["us", "ns"]), use_deprecated_int96_timestamps=True)

    pages = pages_table()
    small = {"data_page_size": 64, "write_batch_size": 5, "row_group_size": 50}
    for codec in ("none", "snappy", "gzip", "zstd"):
        for version in ("1.0", "2.0"):
            name = path("pages_%s_v%s.parquet" % (codec, version[0]))
            pq.write_table(pages, name, compression=codec, data_page_version=version, write_page_checksum=codec in (
                "none", "gzip"), use_dictionary=codec in ("none", "zstd"), **small)
            assert pq.read_table(name) == pages
    write_rows("pages", pages.to_pylist())
    write("delta", pa.table({
        "i32": pa.array([2**31 - 1, -2**31, None, 5] * 20, pa.int32()), "i64": pa.array([i * i * i for i in range(80)]),
        "length": pa.array(["x" * (i % 9) for i in range(80)]), "prefix": pa.array(["common/%d" % (i // 3) for i in range(80)]),
        "fixed": pa.array([b"%08d" % i for i in range(80)], pa.binary(8)),
        "split": pa.array([None if i % 6 == 0 else i / 7 for i in range(80)], pa.float32())}), use_dictionary=False,
        compression="zstd", column_encoding={
            "i32": "DELTA_BINARY_PACKED", "i64": "DELTA_BINARY_PACKED", "length": "DELTA_LENGTH_BYTE_ARRAY",
            "prefix": "DELTA_BYTE_ARRAY", "fixed": "DELTA_BYTE_ARRAY", "split": "BYTE_STREAM_SPLIT"})

    for codec in ("lz4", "brotli"):
        pq.write_table(pa.table({"a": ["x"] * 50}), path(codec + ".parquet"), compression=codec)
    with open(path("legacy.parquet"), "wb") as out:
        out.write(tiny_parquet.legacy_lists())
    theirs = pq.read_table(path("legacy.parquet")).drop_columns("bits")  # pyarrow takes the lowest bit first
    assert theirs.to_pylist() == [{k: v for k, v in row.items() if k != "bits"} for row in tiny_parquet.LEGACY_ROWS]
    write_rows("legacy", tiny_parquet.LEGACY_ROWS)
    os.makedirs(path("lies"), exist_ok=True)
    for name, data in tiny_parquet.lies().items():
        with open(path("lies/%s.parquet" % name), "wb") as out:
            out.write(data)


main()
