/* test_pytorch.c — reading what torch.save wrote (data/io/make_pytorch.py), value by value against
 * the same tensors as safetensors; refusing pickles that ask for more than tensors, tensors outside
 * their storages and damaged zip files. */
#include "io/archive.h"
#include "io_helpers.h"

static am_archive *open_file(const char *path)
{
    am_archive *a;
    ck_ok(am_archive_open(&a, path));
    return a;
}

static am_tensor *get(am_archive *a, const char *name, int dtype)
{
    am_tensor *t;
    int64_t i = am_archive_find(a, name);
    ck_assert_msg(i >= 0, "no tensor %s", name);
    ck_ok(am_archive_tensor(&t, a, i, dtype, 0));
    return t;
}

/* ---- reading ------------------------------------------------------------------------------ */

/* Type, shape and every byte of each tensor, as stored and converted. */
static void compare(const char *path, const char *expected_path)
{
    am_archive *a = open_file(path), *expected = open_file(expected_path);
    ck_assert_str_eq(am_archive_kind(a), "pytorch");
    ck_assert_str_eq(am_archive_metadata(a), "{}");
    ck_assert_int_eq(am_archive_count(a), am_archive_count(expected));
    for (int64_t i = 0; i < am_archive_count(a); i++) {
        const char *name = am_archive_name(a, i), *stored_as[2];
        int dtype[2], ndim[2];
        int64_t shape[2][AM_MAX_DIMS], k = am_archive_find(expected, name);
        am_tensor *t, *u;
        ck_assert_msg(k >= 0, "%s is not expected", name);
        ck_ok(am_archive_info(a, i, &dtype[0], &stored_as[0], &ndim[0], shape[0]));
        ck_ok(am_archive_info(expected, k, &dtype[1], &stored_as[1], &ndim[1], shape[1]));
        ck_assert_str_eq(stored_as[0], stored_as[1]);
        ck_assert_int_eq(dtype[0], dtype[1]);
        ck_assert_int_eq(ndim[0], ndim[1]);
        ck_assert_mem_eq(shape[0], shape[1], (size_t)ndim[0] * sizeof **shape);
        if (dtype[0] < 0) {
            ck_assert_int_eq(am_archive_tensor(&t, a, i, -1, 0), AM_EUNSUP);
            continue;
        }
        for (int as = -1; as <= AM_F64; as++) {
            t = get(a, name, as);
            u = get(expected, name, as);
            size_t bytes = (size_t)(am_tensor_numel(u) * am_dtype_size(am_tensor_dtype(u)));
            ck_assert_int_eq(am_tensor_dtype(t), am_tensor_dtype(u));
            ck_assert_int_eq(am_tensor_numel(t), am_tensor_numel(u));
            if (bytes > 0)
                ck_assert_msg(memcmp(am_tensor_data(t), am_tensor_data(u), bytes) == 0,
                              "%s: %s differs as dtype %d", path, name, as);
            am_tensor_release(t);
            am_tensor_release(u);
        }
    }
    am_archive_release(a);
    am_archive_release(expected);
}

START_TEST(test_types)
{
    compare(DATA("types.bin"), DATA("types_bin.safetensors"));
    compare(DATA("types_zip.bin"), DATA("types_bin.safetensors"));
    compare(DATA("types_zip64.bin"), DATA("types_bin.safetensors"));
}
END_TEST

START_TEST(test_views)
{
    compare(DATA("views.bin"), DATA("views_bin.safetensors"));
    compare(DATA("views_legacy.bin"), DATA("views_bin.safetensors"));
}
END_TEST

START_TEST(test_nested)
{
    compare(DATA("nested.bin"), DATA("nested_bin.safetensors"));
    compare(DATA("nested_model.bin"), DATA("nested_bin.safetensors"));
}
END_TEST

/* Contiguous tensors lie in the mapping, those of one storage at one address; writing to them
 * leaves the file alone. */
START_TEST(test_shared)
{
    size_t bytes, bytes_after;
    char *before = slurp(DATA("views.bin"), &bytes);
    am_archive *a = open_file(DATA("views.bin"));
    uint8_t *start = a->map->data, *end = start + a->map->bytes;
    am_tensor *whole = get(a, "whole", -1), *tied = get(a, "tied", -1), *row = get(a, "row", -1),
              *transposed = get(a, "transposed", -1);
    uint8_t *data = am_tensor_data(whole);
    ck_assert(data > start && data < end);
    ck_assert_ptr_eq(am_tensor_data(tied), data);
    ck_assert_ptr_eq(am_tensor_data(row), data + 70 * sizeof(float));
    data = am_tensor_data(transposed);
    ck_assert(data < start || data >= end);
    am_archive_release(a);
    ck_ok(am_tensor_fill(whole, 7));
    ck_assert(*(float *)am_tensor_data(tied) == 7.0f);
    char *after = slurp(DATA("views.bin"), &bytes_after);
    ck_assert_mem_eq(before, after, bytes);
    free(before);
    free(after);
    am_tensor *all[] = {whole, tied, row, transposed};
    for (int i = 0; i < 4; i++)
        am_tensor_release(all[i]);
}
END_TEST

START_TEST(test_open_without_memory)
{
    static const char *const files[] = {DATA("views.bin"), DATA("views_legacy.bin")};
    for (int f = 0; f < 2; f++) {
        int failures = 0;
        for (int64_t k = 1;; k++, failures++) {
            am_archive *a = NULL;
            am_mem_fail_at(k);
            int rc = am_archive_open(&a, files[f]);
            am_tensor *t = NULL;
            if (rc == AM_OK)
                rc = am_archive_tensor(&t, a, am_archive_find(a, "transposed"), AM_F16, 0);
            am_mem_fail_at(0);
            am_tensor_release(t);
            am_archive_release(a);
            if (rc == AM_OK)
                break;
            ck_assert_int_eq(rc, AM_ENOMEM);
        }
        ck_assert_int_ge(failures, 50);
    }
}
END_TEST

/* ---- building files ------------------------------------------------------------------------ */

typedef struct bytes {
    uint8_t data[1 << 14];
    size_t n;
} bytes;

static void put(bytes *b, const void *data, size_t n)
{
    ck_assert_uint_le(n, sizeof b->data - b->n);
    memcpy(b->data + b->n, data, n);
    b->n += n;
}
#define PUT(b, text) put(b, text, sizeof(text) - 1)

static void put_int(bytes *b, uint64_t value, int width) /* little endian */
{
    put(b, &value, (size_t)width);
}

/* The parts of a stored entry that a test wants to be wrong. */
typedef struct part {
    const char *name;
    const void *data;
    size_t bytes;
    int method, flags;
} part;

/* A zip file of entries, without ZIP64. */
static void put_zip(bytes *b, const part *parts, size_t n)
{
    bytes directory = {.n = 0};
    for (size_t i = 0; i < n; i++) {
        const part *p = &parts[i];
        size_t name = strlen(p->name), place = b->n;
        PUT(&directory, "PK\1\2\x14\0\x14\0");
        put_int(&directory, (uint64_t)p->flags, 2);
        put_int(&directory, (uint64_t)p->method, 2);
        PUT(&directory, "\0\0\0\0\0\0\0\0"); /* time, checksum */
        put_int(&directory, p->bytes, 4);
        put_int(&directory, p->bytes, 4);
        put_int(&directory, name, 2);
        PUT(&directory, "\0\0\0\0\0\0\0\0\0\0\0\0");
        put_int(&directory, place, 4);
        put(&directory, p->name, name);
        PUT(b, "PK\3\4\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        put_int(b, name, 2);
        PUT(b, "\0\0");
        put(b, p->name, name);
        put(b, p->data, p->bytes);
    }
    size_t begin = b->n;
    put(b, directory.data, directory.n);
    PUT(b, "PK\5\6\0\0\0\0");
    put_int(b, n, 2);
    put_int(b, n, 2);
    put_int(b, directory.n, 4);
    put_int(b, begin, 4);
    PUT(b, "\0\0");
}

/* What opening a file of this pickle, and of storage "0" of 16 bytes, says. */
static int try_pickle(const void *pickle, size_t n)
{
    bytes file = {.n = 0};
    part parts[] = {{"top/data.pkl", pickle, n, 0, 0},
                    {"top/data/0", "0123456789abcdef", 16, 0, 0}};
    put_zip(&file, parts, 2);
    return archive_try(file.data, file.n);
}

static void put_long(bytes *b, int64_t value)
{
    PUT(b, "\x8a\x08");
    put_int(b, (uint64_t)value, 8);
}

static void put_text(bytes *b, const char *text)
{
    PUT(b, "X");
    put_int(b, strlen(text), 4);
    put(b, text, strlen(text));
}

typedef struct described {
    const char *type, *key;
    int64_t numel, first;
    int ndim;
    int64_t shape[10], stride[10];
} described;

static void put_tensor(bytes *b, const described *d)
{
    PUT(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(b, "storage");
    PUT(b, "ctorch\n");
    put(b, d->type, strlen(d->type));
    PUT(b, "\n");
    put_text(b, d->key);
    put_text(b, "cpu");
    put_long(b, d->numel);
    PUT(b, "tQ");
    put_long(b, d->first);
    PUT(b, "(");
    for (int i = 0; i < d->ndim; i++)
        put_long(b, d->shape[i]);
    PUT(b, "t(");
    for (int i = 0; i < d->ndim; i++)
        put_long(b, d->stride[i]);
    PUT(b, "t\x89"
           "ccollections\nOrderedDict\n)RtR");
}

/* ---- pickles that ask for more ------------------------------------------------------------- */

#define PICKLE(text) text, sizeof(text) - 1
#define TENSOR_BEGIN "\x80\2}X\1\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(("
#define STORAGE                                                                                    \
    "X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"                                              \
    "0X\3\0\0\0cpuK\4tQ"

START_TEST(test_refused_pickles)
{
    static const struct {
        const char *pickle;
        size_t bytes;
        const char *message; /* NULL: accepted */
    } cases[] = {
        {PICKLE("\x80\2}."), NULL},
        {PICKLE("\x80\2ccollections\nOrderedDict\n)R."), NULL},
        {PICKLE(TENSOR_BEGIN STORAGE "K\0K\4\x85K\1\x85\x89}tRs."), NULL},
        {PICKLE(TENSOR_BEGIN STORAGE "K\0K\4\x85K\1\x85\x89}}tRs."), NULL},
        {PICKLE("\x80\2cos\nsystem\nX\5\0\0\0rm -r\x85R."),
         "the pickle asks for os.system, which is not a tensor: refused"},
        {PICKLE("\x80\2cbuiltins\neval\nX\1\0\0\0001\x85R."), "asks for builtins.eval"},
        {PICKLE("\x80\2cos\nsystem\n."), "asks for os.system"}, /* uncalled, too */
        {PICKLE("\x80\2(X\2\0\0\0lsios\nsystem\n."), "asks for os.system"},
        {PICKLE("\x80\2(icollections\nOrderedDict\n."), "asks for collections.OrderedDict"},
        {PICKLE("\x80\2c\x1b[31m\nx\n."), "asks for ?[31m.x,"},
        {PICKLE("\x80\2ctorch\nFloatStorage\0\n."), "asks for torch.FloatStorage"},
        {PICKLE("\x80\2ctorch._utils\n_rebuild_tensor_v2.__globals__\n."), "refused"},
        {PICKLE("\x80\2ctorch.storage\n_load_from_bytes\n."), "torch.storage._load_from_bytes"},
        {PICKLE("\x80\2X\2\0\0\0osX\6\0\0\0system\x93."), "STACK_GLOBAL"},
        {PICKLE("\x80\2ccollections\nOrderedDict\n)\x81."), "NEWOBJ"},
        {PICKLE("\x80\2(ccollections\nOrderedDict\no."), "OBJ"},
        {PICKLE("\x80\2P1\n."), "PERSID"},
        {PICKLE("\x80\2\x82\1."), "EXT1"},
        {PICKLE("\x80\2\xff"), "opcode 0xff"},
        {PICKLE("\x80\4}."), "protocol 4"},
        {PICKLE("}."), NULL}, /* as Python, which needs no PROTO */
        {PICKLE("\x80\2X\1\0\0\0a)R."), "calls a text"},
        {PICKLE("\x80\2})R."), "calls a dict"},
        {PICKLE("\x80\2ctorch\nFloatStorage\n)R."), "calls torch.FloatStorage"},
        {PICKLE("\x80\2ccollections\nOrderedDict\n]R."), "calls collections.OrderedDict"},
        {PICKLE("\x80\2ccollections\nOrderedDict\n]\x85R."), "calls collections.OrderedDict"},
        {PICKLE("\x80\2ctorch._utils\n_rebuild_parameter\n}\x88}\x87R."), "_rebuild_parameter"},
        {PICKLE("\x80\2ctorch._utils\n_rebuild_parameter\n)R."), "_rebuild_parameter"},
        {PICKLE("\x80\2ctorch\nFloatStorage\n}b."), "BUILD"},
        {PICKLE("\x80\2]}b."), "BUILD"},
        {PICKLE("\x80\2}cos\nsystem\nb."), "os.system"},
        {PICKLE("\x80\2]."), "a list, not a state dict"},
        {PICKLE("\x80\2N."), "None, not a state dict"},
        {PICKLE("\x80\2ctorch\nFloatStorage\n."), "a name, not a state dict"},
        {PICKLE(TENSOR_BEGIN STORAGE "K\0K\4\x85K\1\x85\x89}tR."), "a tensor, not a state dict"},
        {PICKLE("\x80\2}X\1\0\0\0aK\1s."), "no tensors"},
        /* Values that hold themselves. */
        {PICKLE("\x80\2}q\0X\5\0\0\0modelh\0s."), "no tensors"},
        {PICKLE("\x80\2}q\0h\0h\0s."), "no tensors"},
        {PICKLE("\x80\2]q\0h\0a."), "a list"},
        {PICKLE("\x80\2}q\0h\0b."), NULL},
        /* A memo that was not written, or too far. */
        {PICKLE("\x80\2}q\0h\1."), "memo that is empty"},
        {PICKLE("\x80\2}q\3h\2."), "memo that is empty"},
        {PICKLE("\x80\2h\0."), "memo that is empty"},
        {PICKLE("\x80\2j\xff\xff\xff\xff."), "memo that is empty"},
        {PICKLE("\x80\2}r\xff\xff\xff\xff."), "memo that is too far"},
        {PICKLE("\x80\2}q\5."), "memo that is too far"},
        {PICKLE("\x80\2}q\4h\4\x30."), NULL},
        {PICKLE("\x80\2q\0."), "a value is missing"},
        /* A stack that lacks what is asked for. */
        {PICKLE("\x80\2."), "a value is missing"},
        {PICKLE("\x80\2}(."), "a value is missing"},
        {PICKLE("\x80\2}("
                "0."),
         "a value is missing"},
        {PICKLE("\x80\2(."), "a value is missing"},
        {PICKLE("\x80\2\x85."), "a value is missing"},
        {PICKLE("\x80\2}R."), "a value is missing"},
        {PICKLE("\x80\2}K\1s."), "a value is missing"},
        {PICKLE("\x80\2(u."), "a value is missing"},
        {PICKLE("\x80\2b."), "a value is missing"},
        {PICKLE("\x80\2Q."), "a value is missing"},
        {PICKLE("\x80\2}t."), "a mark is missing"},
        {PICKLE("\x80\2}u."), "a mark is missing"},
        {PICKLE("\x80\2]e."), "a mark is missing"},
        {PICKLE("\x80\2}(K\1u."), "a key without a value"},
        {PICKLE("\x80\2](K\1K\1u."), "puts items into a list"},
        {PICKLE("\x80\2}K\1a."), "puts items into a dict"},
        {PICKLE("\x80\2)K\1a."), "puts items into a tuple"},
        {PICKLE("\x80\2}Q."), "not described by a tuple"},
        {PICKLE("\x80\2\x8a\x09"
                "123456789."),
         "an integer of 9 bytes"},
        /* Lengths that lie. */
        {PICKLE("\x80\2X\xff\xff\xff\xff"
                "a."),
         "truncated"},
        {PICKLE("\x80\2U\xff"
                "a."),
         "truncated"},
        {PICKLE("\x80\2cos\nsystem"), "truncated"},
        {PICKLE("\x80\2J\1\2\3"), "truncated"},
        {PICKLE("\x80\2}"), "truncated"},
        {PICKLE(""), "truncated"},
        /* Tensors of something else. */
        {PICKLE(TENSOR_BEGIN "tK\0K\4\x85K\1\x85\x89}tRs."), "made of a tuple"},
        {PICKLE(TENSOR_BEGIN "tQK\0K\4\x85K\1\x85\x89}tRs."), "its storage is not described"},
        {PICKLE(TENSOR_BEGIN STORAGE "NK\4\x85K\1\x85\x89}tRs."), "at None"},
        {PICKLE(TENSOR_BEGIN STORAGE "K\0K\4K\1\x85\x89}tRs."), "not tuples"},
        {PICKLE(TENSOR_BEGIN STORAGE "K\0K\4\x85)\x89}tRs."), "not tuples of the same length"},
        {PICKLE(TENSOR_BEGIN STORAGE "K\0N\x85K\1\x85\x89}tRs."), "dim 0 of its shape"},
        {PICKLE(TENSOR_BEGIN STORAGE "K\0K\4\x85N\x85\x89}tRs."), "dim 0 of its shape"},
        {PICKLE(TENSOR_BEGIN STORAGE "K\0K\4\x85K\1\x85tRs."), "4 arguments"},
        {PICKLE(TENSOR_BEGIN STORAGE "K\0K\4\x85K\1\x85\x89}}X\3\0\0\0neg\x88stRs."), "negated"},
        {PICKLE("\x80\2}X\1\0\0\0wctorch._utils\n_rebuild_tensor_v3\n((" STORAGE
                "K\0K\4\x85K\1\x85\x89}NtRs."),
         "its dtype is None"},
        {PICKLE("\x80\2}X\1\0\0\0wctorch._utils\n_rebuild_tensor\n((" STORAGE
                "K\0K\4\x85K\1\x85tRs."),
         NULL},
        /* Names. */
        {PICKLE("\x80\2}K\1ctorch._utils\n_rebuild_tensor\n((" STORAGE "K\0K\4\x85K\1\x85tRs."),
         "the name of a tensor is an integer"},
        {PICKLE("\x80\2}X\2\0\0\0a\0ctorch._utils\n_rebuild_tensor\n((" STORAGE
                "K\0K\4\x85K\1\x85tRs."),
         "a text with a zero byte"},
        {PICKLE("\x80\2}(X\1\0\0\0actorch._utils\n_rebuild_tensor\n((" STORAGE
                "K\0K\4\x85K\1\x85tRq\0X\1\0\0\0ah\0u."),
         "occurs twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int rc = try_pickle(cases[i].pickle, cases[i].bytes);
        if (cases[i].message) {
            ck_assert_msg(rc == AM_EFORMAT || rc == AM_EUNSUP, "case %d is accepted", (int)i);
            ck_message(cases[i].message);
            ck_message("served: ");
        } else {
            ck_assert_msg(rc == AM_OK, "case %d: %s", (int)i, am_error_message());
        }
    }
}
END_TEST

/* Depth costs no stack: marks in marks, tuples in tuples, dicts in dicts. */
START_TEST(test_deep_pickles)
{
    enum { N = 7000 };
    static const char *const steps[] = {"(", "N\x85", "}K\1", "(((t", "NN0"};
    for (size_t k = 0; k < sizeof steps / sizeof *steps; k++) {
        bytes b = {.n = 0};
        PUT(&b, "\x80\2");
        while (b.n < N)
            put(&b, steps[k], strlen(steps[k]));
        if (k == 1)
            for (int i = 0; i < 500; i++)
                PUT(&b, "\x86");
        if (k == 2)
            for (int i = 0; i < 500; i++)
                PUT(&b, "N\x86");
        PUT(&b, ".");
        ck_assert_int_eq(try_pickle(b.data, b.n), AM_EFORMAT);
    }
}
END_TEST

/* ---- tensors outside their storage ---------------------------------------------------------- */

START_TEST(test_refused_tensors)
{
    static const int64_t huge = INT64_MAX, large = 1ll << 40;
    const struct {
        described tensor;
        const char *message; /* NULL: accepted */
    } cases[] = {
        {{"FloatStorage", "0", 4, 0, 1, {4}, {1}}, NULL},
        {{"FloatStorage", "0", 4, 0, 2, {2, 2}, {1, 2}}, NULL},
        {{"FloatStorage", "0", 4, 3, 0, {0}, {0}}, NULL},
        {{"FloatStorage", "0", 4, 1, 1, {3}, {1}}, NULL},
        {{"FloatStorage", "0", 2, 0, 1, {2}, {1}}, NULL},
        {{"FloatStorage", "0", 4, 0, 2, {0, 9}, {9, 1}}, NULL},
        {{"FloatStorage", "0", 4, 3, 2, {1, 1}, {huge, huge}}, NULL},
        {{"DoubleStorage", "0", 2, 0, 2, {3, 2}, {0, 1}}, NULL},
        {{"BoolStorage", "0", 16, 1, 1, {8}, {2}}, NULL},
        {{"FloatStorage", "0", 4, 0, 1, {5}, {1}}, "its element 4 is outside its storage of 4"},
        {{"FloatStorage", "0", 4, 1, 1, {4}, {1}}, "outside its storage"},
        {{"FloatStorage", "0", 4, 0, 1, {2}, {4}}, "outside its storage"},
        {{"FloatStorage", "0", 4, 4, 0, {0}, {0}}, "outside its storage"},
        {{"FloatStorage", "0", 4, huge, 1, {1}, {1}}, "outside its storage"},
        {{"FloatStorage", "0", 2, 0, 1, {4}, {1}}, "outside its storage of 2"},
        {{"FloatStorage", "0", 0, 0, 1, {1}, {1}}, "outside its storage of 0"},
        {{"FloatStorage", "0", 5, 0, 1, {5}, {1}}, "storage of 5 elements is stored in 16 bytes"},
        {{"FloatStorage", "0", large, 0, 1, {1}, {1}}, "stored in 16 bytes"},
        {{"DoubleStorage", "0", huge, 0, 1, {1}, {1}}, "stored in 16 bytes"},
        {{"DoubleStorage", "0", 1ll << 61, 0, 1, {1}, {1}}, "stored in 16 bytes"},
        {{"FloatStorage", "0", -1, 0, 1, {1}, {1}}, "its storage is not described"},
        {{"FloatStorage", "0", 4, -1, 1, {1}, {1}}, "begins before its storage"},
        {{"FloatStorage", "0", 4, INT64_MIN, 1, {1}, {1}}, "begins before its storage"},
        {{"FloatStorage", "0", 4, 0, 1, {-1}, {1}}, "dim 0 of its shape"},
        {{"FloatStorage", "0", 4, 3, 1, {4}, {-1}}, "dim 0 of its shape"},
        {{"FloatStorage", "0", 4, 0, 1, {huge}, {1}}, "too large"},
        {{"FloatStorage", "0", 4, 0, 2, {large, large}, {0, 0}}, "too large"},
        {{"FloatStorage", "0", 4, 0, 1, {3}, {huge}}, "too large"},
        {{"FloatStorage", "0", 4, 1, 1, {2}, {huge}}, "too large"},
        {{"FloatStorage", "0", 4, 0, 1, {large}, {0}}, "repeats its elements"},
        {{"FloatStorage", "0", 4, 0, 9, {1, 1, 1, 1, 1, 1, 1, 1, 1}, {0}}, "9 dims"},
        {{"FloatStorage", "1", 4, 0, 1, {4}, {1}}, "its storage \"1\" is not in the file"},
        {{"FloatStorage", "../data.pkl", 4, 0, 1, {4}, {1}}, "is not in the file"},
        {{"FloatStorage", "", 4, 0, 1, {4}, {1}}, "is not in the file"},
        {{"UntypedStorage", "0", 16, 0, 1, {4}, {1}}, "bytes without a dtype"},
        {{"QInt8Storage", "0", 16, 0, 1, {4}, {1}}, "asks for torch.QInt8Storage"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bytes b = {.n = 0};
        PUT(&b, "\x80\2}");
        put_text(&b, "layer.weight");
        put_tensor(&b, &cases[i].tensor);
        PUT(&b, "s.");
        int rc = try_pickle(b.data, b.n);
        if (cases[i].message) {
            ck_assert_msg(rc == AM_EFORMAT || rc == AM_EUNSUP, "case %d is accepted", (int)i);
            ck_message(cases[i].message);
            if (!strstr(cases[i].message, "asks for"))
                ck_message("served: tensor \"layer.weight\": ");
        } else {
            ck_assert_msg(rc == AM_OK, "case %d: %s", (int)i, am_error_message());
        }
    }
}
END_TEST

/* ---- files that are damaged, or others ------------------------------------------------------ */

START_TEST(test_refused_zips)
{
    static const char empty[] = "\x80\2}.";
    const struct {
        part parts[2];
        size_t n;
        const char *message; /* NULL: accepted */
    } cases[] = {
        {{{"a/data.pkl", empty, 4, 0, 0}}, 1, NULL},
        {{{"a/data.pkl", empty, 4, 0, 0}, {"a/byteorder", "little", 6, 0, 0}}, 2, NULL},
        {{{"a/data.pkl", empty, 4, 0, 0}, {"b/x", "", 0, 8, 0}}, 2, NULL}, /* not looked at */
        {{{"word/document.xml", "", 0, 8, 0}}, 1, "a zip file without data.pkl"},
        {{{"data.pkl", empty, 4, 0, 0}}, 1, "without data.pkl"},
        {{{"a/b/data.pkl", empty, 4, 0, 0}}, 1, "without data.pkl"},
        {{{"a/data.pkl", empty, 4, 8, 0}}, 1, "a/data.pkl is compressed"},
        {{{"a/data.pkl", empty, 4, 0, 1}}, 1, "a/data.pkl is encrypted"},
        {{{"a/data.pkl", empty, 4, 0, 0}, {"a/data/0", "", 0, 8, 0}}, 2, "a/data/0 is compressed"},
        {{{"a/data.pkl", empty, 4, 0, 0}, {"a/byteorder", "big", 3, 0, 0}}, 2, "little endian"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bytes file = {.n = 0};
        put_zip(&file, cases[i].parts, cases[i].n);
        int rc = archive_try(file.data, file.n);
        if (cases[i].message) {
            ck_assert_msg(rc == AM_EFORMAT || rc == AM_EUNSUP, "case %d is accepted", (int)i);
            ck_message(cases[i].message);
        } else {
            ck_assert_msg(rc == AM_OK, "case %d: %s", (int)i, am_error_message());
        }
    }
    bytes twice = {.n = 0};
    part parts[] = {
        {"a/data.pkl", empty, 4, 0, 0}, {"a/data/0", "", 0, 0, 0}, {"a/data/0", "", 0, 0, 0}};
    put_zip(&twice, parts, 3);
    ck_assert_int_eq(archive_try(twice.data, twice.n), AM_EFORMAT);
    ck_message("storage \"0\" occurs twice");
}
END_TEST

/* A directory that says what is not so: a header of 40 bytes and 4 of data, then the directory. */
START_TEST(test_lying_zips)
{
    enum { HEADER = 40, DIRECTORY = HEADER + 4, ENTRY = 46 + 10, END = DIRECTORY + ENTRY };
    static const struct {
        size_t at[2]; /* where `value` is put, 4 bytes */
        uint32_t value;
        const char *message;
    } cases[] = {
        {{DIRECTORY + 20, DIRECTORY + 24}, 5, "a/data.pkl: the zip file is truncated or damaged"},
        {{DIRECTORY + 20, DIRECTORY + 24}, UINT32_MAX - 1, "a/data.pkl: the zip file is"},
        {{DIRECTORY + 20, DIRECTORY + 24}, UINT32_MAX, "lacks its ZIP64 sizes"},
        {{DIRECTORY + 20, DIRECTORY + 24}, 3, "the pickle ends inside a value"},
        {{DIRECTORY + 20, DIRECTORY + 20}, 3, "an entry has two sizes"},
        {{DIRECTORY + 42, DIRECTORY + 42}, 1, "a/data.pkl: the zip file is"},
        {{DIRECTORY + 42, DIRECTORY + 42}, DIRECTORY, "a/data.pkl: the zip file is"},
        {{DIRECTORY + 42, DIRECTORY + 42}, UINT32_MAX - 1, "a/data.pkl: the zip file is"},
        {{26, 26}, 9, "a/data.pkl: the zip file is"}, /* another length of the name */
        {{26, 26},
         10 | 1 << 16,
         "a/data.pkl: the zip file is"}, /* an extra field that does not fit */
        {{DIRECTORY, DIRECTORY}, 0, "an entry of its directory is none"},
        {{DIRECTORY + 28, DIRECTORY + 28}, 11, "reaches beyond the end"},
        {{DIRECTORY + 46, DIRECTORY + 46}, 0, "a zero byte in the name"},
        {{END + 8, END + 8}, 2 | 2 << 16, "reaches beyond the end"}, /* two entries */
        {{END + 12, END + 12}, ENTRY + 1, "reaches beyond the end"},
        {{END + 12, END + 12}, UINT32_MAX, "reaches beyond the end"},
        {{END + 16, END + 16}, DIRECTORY + 1, "reaches beyond the end"},
        {{END + 16, END + 16}, UINT32_MAX, "reaches beyond the end"},
        {{END, END}, 0, "no end record"},
    };
    const part whole = {"a/data.pkl", "\x80\2}.", 4, 0, 0};
    bytes file = {.n = 0};
    put_zip(&file, &whole, 1);
    ck_assert_uint_eq(file.n, END + 22);
    ck_ok(archive_try(file.data, file.n));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bytes lying = file;
        for (int k = 0; k < 2; k++)
            memcpy(lying.data + cases[i].at[k], &cases[i].value, 4);
        ck_assert_msg(archive_try(lying.data, lying.n) == AM_EFORMAT, "case %d is accepted",
                      (int)i);
        ck_message(cases[i].message);
    }
}
END_TEST

START_TEST(test_other_pickles)
{
    ck_assert_int_eq(archive_try("\x80\2}q\0X\1\0\0\0aK\1s.", 16), AM_EFORMAT);
    ck_message("a pickle, but not as torch.save writes it");
    ck_assert_int_eq(archive_try("\x80\4\x95\0\0\0\0\0\0\0\0}\x94.", 14), AM_EFORMAT);
    ck_message("a pickle, but not as torch.save writes it");
}
END_TEST

/* Old files: what is between the magic number and the storages. */
START_TEST(test_refused_legacy)
{
#define OLD    "\x80\2\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\2M\xe9\3."
#define LITTLE "\x80\2}X\x0d\0\0\0little_endian\x88s."
#define TENSOR TENSOR_BEGIN STORAGE "K\0K\4\x85K\1\x85\x89}tRs."
#define DATA4                                                                                      \
    "\4\0\0\0\0\0\0\0"                                                                             \
    "0123456789abcdef"
    static const struct {
        const char *file;
        size_t bytes;
        const char *message; /* NULL: accepted */
    } cases[] = {
        {PICKLE(OLD LITTLE "}.]."), NULL},
        {PICKLE(OLD LITTLE TENSOR "]X\1\0\0\0000a." DATA4), NULL},
        {PICKLE(OLD LITTLE TENSOR "]X\1\0\0\0000a." DATA4 "after"), NULL}, /* as torch.load */
        {PICKLE(OLD "\x80\2}X\x0d\0\0\0little_endian\x89s."
                    "}.]."),
         "not little endian"},
        {PICKLE(OLD "}.}.]."), "not little endian"},
        {PICKLE(OLD "].}.]."), "not little endian"},
        {PICKLE(OLD "cos\nsystem\n."), "asks for os.system"},
        {PICKLE(OLD LITTLE "cos\nsystem\n."), "asks for os.system"},
        {PICKLE(OLD LITTLE "}.cos\nsystem\n."), "asks for os.system"},
        {PICKLE(OLD LITTLE "}.}."), "a dict instead of a list of storages"},
        {PICKLE(OLD LITTLE "}.]K\1a."), "the key of storage 0"},
        {PICKLE(OLD LITTLE "}.]X\1\0\0\0000a." DATA4), "storage 0 belongs to no tensor"},
        {PICKLE(OLD LITTLE TENSOR "](X\1\0\0\0000X\1\0\0\0000e." DATA4), "occurs twice"},
        {PICKLE(OLD LITTLE TENSOR "]."), "is not in the file"},
        {PICKLE(OLD LITTLE TENSOR "]X\1\0\0\0000a.\5\0\0\0\0\0\0\0"
                                  "0123456789abcdef"),
         "ends inside storage 0"},
        {PICKLE(OLD LITTLE TENSOR "]X\1\0\0\0000a.\xff\xff\xff\xff\xff\xff\xff\xff"
                                  "0123456789abcdef"),
         "ends inside storage 0"},
        {PICKLE(OLD LITTLE TENSOR "]X\1\0\0\0000a.\3\0\0\0\0\0\0\0"
                                  "0123456789abcdef"),
         "storage of 4 elements is stored in 12 bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int rc = archive_try(cases[i].file, cases[i].bytes);
        if (cases[i].message) {
            ck_assert_msg(rc == AM_EFORMAT || rc == AM_EUNSUP, "case %d is accepted", (int)i);
            ck_message(cases[i].message);
        } else {
            ck_assert_msg(rc == AM_OK, "case %d: %s", (int)i, am_error_message());
        }
    }
}
END_TEST

START_TEST(test_truncated_and_flipped)
{
    archive_torture(DATA("types_zip64.bin"), 0);
    archive_torture(DATA("views.bin"), 0);
    archive_torture(DATA("views_legacy.bin"), 0);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_types,
        test_views,
        test_nested,
        test_shared,
        test_open_without_memory,
        test_refused_pickles,
        test_deep_pickles,
        test_refused_tensors,
        test_refused_zips,
        test_lying_zips,
        test_other_pickles,
        test_refused_legacy,
        test_truncated_and_flipped,
    };
    return run_suite("pytorch", tests, sizeof tests / sizeof *tests);
}
