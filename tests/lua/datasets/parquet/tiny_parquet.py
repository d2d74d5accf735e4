"""Parquet files byte by byte, for what no writer at hand still writes: lists without a group around
their items, levels that are bit-packed, repeated fields alone, and files that lie about themselves.
Python's standard library is enough. Names are those of parquet.thrift.
"""
import struct

BOOLEAN, INT32, INT64, INT96, FLOAT, DOUBLE, BYTE_ARRAY, FIXED = range(8)
REQUIRED, OPTIONAL, REPEATED = range(3)
UTF8, MAP, MAP_KEY_VALUE, LIST = range(4)
PLAIN, PLAIN_DICTIONARY, RLE, BIT_PACKED = 0, 2, 3, 4


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def zigzag(n):
    return varint(n << 1 if n >= 0 else (-n << 1) - 1)


class I32(int):
    kind = 5


class I64(int):
    kind = 6


def value(v):
    """Kind and bytes of a value in Thrift's compact protocol: dict (of field numbers), list, bytes, I32, I64."""
    if isinstance(v, bool):
        return (1 if v else 2), b""
    if isinstance(v, (I32, I64)):
        return v.kind, zigzag(v)
    if isinstance(v, bytes):
        return 8, varint(len(v)) + v
    if isinstance(v, list):
        items = [value(x) for x in v]
        kind = items[0][0] if items else 12
        head = bytes([len(v) << 4 | kind]) if len(v) < 15 else bytes([0xF0 | kind]) + varint(len(v))
        return 9, head + b"".join(data for _, data in items)
    out, last = b"", 0
    for number in sorted(v):
        kind, data = value(v[number])
        out += bytes([(number - last) << 4 | kind]) + data
        last = number
    return 12, out + b"\0"


def thrift(v):
    return value(v)[1]


def element(name, type=None, repetition=REQUIRED, children=None, converted=None, length=None):
    fields = {4: name.encode()}
    for number, v in ((1, type), (2, length), (3, repetition), (5, children), (6, converted)):
        if v is not None:
            fields[number] = I32(v)
    return fields


def plain(type, values):
    if type == BYTE_ARRAY:
        return b"".join(struct.pack("<I", len(v)) + v for v in values)
    return b"".join(struct.pack({INT32: "<i", INT64: "<q", FLOAT: "<f", DOUBLE: "<d"}[type], v) for v in values)


def width(most):
    return most.bit_length()


def rle_levels(levels, most):
    """Levels as runs of one each, behind their length."""
    if most == 0:
        return b""
    runs = b"".join(varint(1 << 1) + bytes([level]) for level in levels)
    return struct.pack("<I", len(runs)) + runs


def packed_levels(levels, most):
    """BIT_PACKED: the highest bit first, without a length."""
    if most == 0:
        return b""
    bits = "".join(format(level, "0%db" % width(most)) for level in levels)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def data_page(type, values, reps, defs, max_rep, max_def, bit_packed=False, **lies):
    encode = packed_levels if bit_packed else rle_levels
    body = encode(reps, max_rep) + encode(defs, max_def) + plain(type, values)
    kind = I32(BIT_PACKED if bit_packed else RLE)
    entries = lies.get("entries", len(defs))
    size = lies.get("size", len(body))
    return thrift({1: I32(0), 2: I32(size), 3: I32(len(body)),
                   5: {1: I32(entries), 2: I32(lies.get("encoding", PLAIN)), 3: kind, 4: kind}}) + body


def file(elements, columns, rows, **lies):
    """columns: (type, path, entries, pages) each; the root's element is the first of elements."""
    data, chunks = b"PAR1", []
    for type, path, entries, pages in columns:
        at = len(data)
        data += b"".join(pages)
        size = lies.get("chunk", len(data) - at)
        chunks.append({2: I64(at), 3: {1: I32(type), 2: [I32(PLAIN)], 3: [p.encode() for p in path],
                                       4: I32(lies.get("codec", 0)), 5: I64(entries), 6: I64(size), 7: I64(size),
                                       9: I64(lies.get("at", at))}})
    footer = thrift({1: I32(1), 2: elements, 3: I64(lies.get("all_rows", rows)),
                     4: [{1: chunks, 2: I64(len(data)), 3: I64(rows)}]})
    return data + footer + struct.pack("<I", lies.get("footer", len(footer))) + b"PAR1"


def legacy_lists():
    """Three rows: lists of the older shapes, a repeated field alone, and levels that are bit-packed."""
    elements = [
        element("schema", children=4),
        element("ids", repetition=OPTIONAL, children=1, converted=LIST),
        element("array", INT32, REPEATED),
        element("pairs", repetition=OPTIONAL, children=1, converted=LIST),
        element("pairs_tuple", repetition=REPEATED, children=1),
        element("word", BYTE_ARRAY, OPTIONAL, converted=UTF8),
        element("tags", BYTE_ARRAY, REPEATED, converted=UTF8),
        element("bits", repetition=OPTIONAL, children=1, converted=LIST),
        element("bag", repetition=REPEATED, children=1),
        element("array_element", INT64, OPTIONAL),
    ]
    ids = data_page(INT32, [1, 2, 3], [0, 1, 0, 0], [2, 2, 0, 2], 1, 2)
    words = data_page(BYTE_ARRAY, [b"a", b"c"], [0, 1, 1, 0, 0], [3, 2, 3, 1, 0], 1, 3)
    tags = data_page(BYTE_ARRAY, [b"x", b"y"], [0, 1, 0, 0], [1, 1, 0, 0], 1, 1)
    bits = data_page(INT64, [7, 9, -1], [0, 1, 1, 0, 0, 1], [3, 2, 3, 1, 2, 3], 1, 3, bit_packed=True)
    return file(elements, [
        (INT32, ["ids", "array"], 4, [ids]),
        (BYTE_ARRAY, ["pairs", "pairs_tuple", "word"], 5, [words]),
        (BYTE_ARRAY, ["tags"], 4, [tags]),
        (INT64, ["bits", "bag", "array_element"], 6, [bits]),
    ], 3)


LEGACY_ROWS = [
    {"ids": [1, 2], "pairs": [{"word": "a"}, {"word": None}, {"word": "c"}], "tags": ["x", "y"], "bits": [7, None, 9]},
    {"ids": None, "pairs": [], "tags": [], "bits": []},
    {"ids": [3], "pairs": None, "tags": [], "bits": [None, -1]},
]


def lies():
    """Files of a row or two that contradict themselves, by what is wrong with them."""
    root = element("schema", children=1)
    number = element("n", INT32)
    text = element("t", BYTE_ARRAY, converted=UTF8)
    listed = [root, element("l", repetition=OPTIONAL, children=1, converted=LIST), element("array", INT32, REPEATED)]
    paired = [root, element("s", repetition=OPTIONAL, children=2), element("x", INT32), element("y", INT32)]
    pairs = [root, element("l", repetition=REPEATED, children=2), element("x", INT32), element("y", INT32)]

    def numbers(values=(1, 2), entries=2, **page):
        return [(INT32, ["n"], entries, [data_page(INT32, values, [0] * len(values), [0] * len(values), 0, 0, **page)])]

    def lists(reps, defs, values=(7, 8)):
        return [(INT32, ["l", "array"], len(reps), [data_page(INT32, values, reps, defs, 1, 2)])]

    def two(elements, x, y, max_rep, rows=2):
        return file(elements, [(INT32, [name], len(reps), [data_page(INT32, values, reps, defs, max_rep, 1)])
                               for name, (values, reps, defs) in (("x", x), ("y", y))], rows)

    deep = [root] + [element("g", children=1) for _ in range(100)] + [number]
    deep_lists = [root] + [element("g", repetition=REPEATED, children=1) for _ in range(60)] + [number]
    huge = struct.pack("<I", 2**31 - 1)
    delta = varint(128) + varint(4) + varint(2**40) + zigzag(0)
    return {
        "rows": file([root, number], numbers(), 2, all_rows=3),
        "group_rows": file([root, number], numbers(), 3),
        "fewer_values": file([root, number], numbers(values=(1,), entries=2), 2),
        "page_entries": file([root, number], [
            (INT32, ["n"], 2, [data_page(INT32, [1], [0], [0], 0, 0, entries=2)])], 2),
        "many_entries": file([root, number], [
            (INT32, ["n"], 2, [data_page(INT32, [1], [0], [0], 0, 0, entries=2**31 - 1)])], 2),
        "page_size": file([root, number], numbers(size=9), 2),
        "chunk": file([root, number], numbers(), 2, chunk=10**6),
        "short_chunk": file([root, number], numbers(), 2, chunk=20),
        "at": file([root, number], numbers(), 2, at=10**9),
        "footer": file([root, number], numbers(), 2, footer=10**6),
        "codec": file([root, number], numbers(), 2, codec=99),
        "not_snappy": file([root, number], numbers(), 2, codec=1),
        "not_gzip": file([root, number], numbers(size=10**7), 2, codec=2),
        "bomb": file([root, number], numbers(size=2**31 - 1), 2, codec=6),
        "encoding": file([root, number], numbers(encoding=77), 2),
        "no_dictionary": file([root, number], numbers(encoding=8), 2),
        "text_length": file([root, text], [(BYTE_ARRAY, ["t"], 1, [
            data_page(INT32, [2**31 - 1], [0], [0], 0, 0)])], 1),
        "not_utf8": file([root, text], [(BYTE_ARRAY, ["t"], 1, [
            data_page(BYTE_ARRAY, [b"a\xff"], [0], [0], 0, 0)])], 1),
        "delta": file([root, text], [(BYTE_ARRAY, ["t"], 1, [thrift({
            1: I32(0), 2: I32(len(delta)), 3: I32(len(delta)),
            5: {1: I32(1), 2: I32(6), 3: I32(RLE), 4: I32(RLE)}}) + delta])], 1),
        "def_level": file(listed, lists([0, 0], [3, 2]), 2),
        "no_row": file(listed, lists([1, 0], [2, 2]), 2),
        "more_rows": file(listed, lists([0, 1], [2, 2]), 2),
        "struct": two(paired, ([1, 2], [0, 0], [1, 1]), ([1], [0, 0], [1, 0]), 0),
        "list": two(pairs, ([1, 2, 3], [0, 1, 0], [1, 1, 1]), ([1, 2, 3], [0, 0, 1], [1, 1, 1]), 1),
        "list_end": two(pairs, ([1, 2], [0, 0], [1, 1]), ([1, 2, 3], [0, 0, 1], [1, 1, 1]), 1),
        "deep": file(deep, numbers(), 2),
        "deep_lists": file(deep_lists, numbers(), 2),
        "children": file([element("schema", children=9), number], numbers(), 2),
        "many_children": file([element("schema", children=2**31 - 1), number], numbers(), 2),
        "no_type": file([root, element("n")], numbers(), 2),
        "type": file([root, element("n", 9)], numbers(), 2),
        "other_type": file([root, element("n", INT64)], numbers(), 2),
        "length": file([root, element("n", FIXED, length=0)], numbers(), 2),
        "no_columns": file([element("schema")], [], 0),
        "magic": b"PAR1" + huge + b"PAR1",
    }
