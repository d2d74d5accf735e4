#!/usr/bin/env python3
"""Compare amlua's rows with pyarrow's on random schemas, rows and writer options.
usage: python check_random.py COUNT [FIRST_SEED]   in an environment with pyarrow; AMLUA names the program

Prints the seed of a file that differs. Nothing of it is kept: the goldens of make_goldens.py are.
"""
import json
import os
import random
import subprocess
import sys
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq

DUMP = """
local rows, json = require("am.datasets.file_rows"), require("am.utils.json")
for name in io.lines() do
    local source, seed = rows.open(name), tonumber(name:match("(%d+)%.parquet$"))
    local n, out = source:len(), {}
    for i = 1, n do out[i] = json.encode(source:get(i)) end
    for k = 1, math.min(n, 20) do -- in any order
        local i = (seed * 7919 + k * k * 104729) % n + 1
        assert(json.encode(source:get(i)) == out[i], name .. " row " .. i)
    end
    source:close()
    local file = assert(io.open(name .. ".jsonl", "w"))
    file:write(table.concat(out, "\\n"), "\\n")
    file:close()
end
"""


def random_type(draw, depth):
    leaf = [pa.int32(), pa.int64(), pa.string(), pa.bool_(), pa.float64(), pa.float32(), pa.binary(5), pa.int8()]
    if depth == 0 or draw.random() < 0.5:
        return draw.choice(leaf)
    if draw.random() < 0.5:
        return pa.list_(pa.field("element", random_type(draw, depth - 1), nullable=draw.random() < 0.8))
    return pa.struct([pa.field("f%d" % i, random_type(draw, depth - 1), nullable=draw.random() < 0.8)
                      for i in range(draw.randrange(1, 4))])


def random_value(draw, type, nullable, nulls):
    if nullable and draw.random() < nulls:
        return None
    if pa.types.is_list(type):
        items = type.value_field
        return [random_value(draw, items.type, items.nullable, nulls) for _ in range(draw.choice([0, 0, 1, 2, 3, 30]))]
    if pa.types.is_struct(type):
        return {f.name: random_value(draw, f.type, f.nullable, nulls) for f in type}
    if pa.types.is_boolean(type):
        return draw.random() < 0.5
    if pa.types.is_string(type):
        return draw.choice(["", "a", "word", "é" * draw.randrange(40), str(draw.randrange(10**6))])
    if pa.types.is_fixed_size_binary(type):
        return b"%05d" % draw.randrange(10**5)
    if pa.types.is_float32(type):
        return draw.randrange(-1000, 1000) / 8
    if pa.types.is_float64(type):
        return draw.random()
    limit = {8: 2**7, 32: 2**31, 64: 2**53}[type.bit_width]
    return draw.choice([draw.randrange(-limit, limit), draw.randrange(-3, 3)])


def make(seed, name):
    draw = random.Random(seed)
    fields = [pa.field("c%d" % i, random_type(draw, draw.randrange(4)), nullable=draw.random() < 0.8)
              for i in range(draw.randrange(1, 6))]
    nulls = draw.choice([0, 0.1, 0.5, 0.95])
    rows = [{f.name: random_value(draw, f.type, f.nullable, nulls) for f in fields} for _ in range(draw.choice([1, 7, 60, 300]))]
    table = pa.Table.from_pylist(rows, pa.schema(fields))
    pq.write_table(
        table, name, compression=draw.choice(["none", "snappy", "gzip", "zstd"]), use_dictionary=draw.random() < 0.5,
        data_page_version=draw.choice(["1.0", "2.0"]), data_page_size=draw.choice([1, 100, 2000, 2**20]),
        write_batch_size=draw.choice([1, 3, 50, 1024]), row_group_size=draw.choice([5, 100, 1000]),
        dictionary_pagesize_limit=draw.choice([1, 100, 2**20]), write_page_index=draw.random() < 0.5,
        use_content_defined_chunking=draw.random() < 0.3, write_page_checksum=draw.random() < 0.5,
        use_compliant_nested_type=draw.random() < 0.7)
    return [json.loads(json.dumps(row, default=bytes.decode)) for row in table.to_pylist()]


def main():
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory() as folder:
        names = [os.path.join(folder, "%d.parquet" % seed) for seed in range(first, first + count)]
        expected = [make(first + i, name) for i, name in enumerate(names)]
        subprocess.run([os.environ["AMLUA"], "-e", DUMP], input="\n".join(names), text=True, check=True)
        for i, name in enumerate(names):
            with open(name + ".jsonl") as lines:
                ours = [json.loads(line) for line in lines]
            if ours != expected[i]:
                k = next(k for k, row in enumerate(expected[i]) if k >= len(ours) or ours[k] != row)
                sys.exit("seed %d, row %d: %s\nexpected %s" % (first + i, k + 1, ours[k : k + 1], expected[i][k]))
    print("%d files are the same" % count)


main()
