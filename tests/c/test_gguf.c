/* test_gguf.c — reading GGUF files written by the gguf package: key-values, tensors, dequantising
 * bit for bit, and refusing hostile files. */
#include "io/archive.h"
#include "io/gguf.h"
#include "io_helpers.h"

static am_archive *open_types(void)
{
    am_archive *a;
    ck_ok(am_archive_open(&a, DATA("types.gguf")));
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

/* ---- reading (data/io/make.py) ------------------------------------------------------------ */

START_TEST(test_scalars)
{
    am_archive *a = open_types();
    static const struct {
        const char *key;
        int64_t value;
    } ints[] = {{"kv.u8", 255},       {"kv.i8", -128},        {"kv.u16", 65535},
                {"kv.i16", -32768},   {"kv.u32", 4294967295}, {"kv.i32", INT32_MIN},
                {"kv.i64", INT64_MIN}};
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        int64_t value = 0;
        double real = 0;
        ck_ok(am_gguf_int(&value, a, ints[i].key));
        ck_assert_msg(value == ints[i].value, "%s is %lld", ints[i].key, (long long)value);
        ck_ok(am_gguf_double(&real, a, ints[i].key));
        ck_assert(real == (double)ints[i].value);
    }
    int64_t i = 7;
    double x = 7;
    int b = 7;
    const char *text = "unset";
    size_t bytes = 7;
    ck_assert_int_eq(am_gguf_int(&i, a, "kv.u64"), AM_EFORMAT); /* does not fit */
    ck_ok(am_gguf_double(&x, a, "kv.u64"));
    ck_assert(x == 18446744073709551616.0);
    ck_ok(am_gguf_double(&x, a, "kv.f32"));
    ck_assert(x == (double)0.1f);
    ck_ok(am_gguf_double(&x, a, "kv.f64"));
    ck_assert(x == 0.1);
    ck_ok(am_gguf_bool(&b, a, "kv.bool"));
    ck_assert_int_eq(b, 1);
    ck_ok(am_gguf_string(&text, &bytes, a, "kv.string"));
    ck_assert_uint_eq(bytes, 5);
    ck_assert_mem_eq(text, "\xc3\xa9 \"\n", 5);

    i = 7;
    ck_ok(am_gguf_int(&i, a, "absent")); /* keeps the default */
    ck_assert_int_eq((int)i, 7);
    ck_assert(am_gguf_has(a, "kv.u8") && !am_gguf_has(a, "absent"));
    ck_assert_int_eq(am_gguf_int(&i, a, "kv.f32"), AM_EFORMAT);
    ck_message("types.gguf: key \"kv.f32\" is of type f32, not an integer");
    ck_assert_int_eq(am_gguf_double(&x, a, "kv.string"), AM_EFORMAT);
    ck_assert_int_eq(am_gguf_bool(&b, a, "kv.u8"), AM_EFORMAT);
    ck_assert_int_eq(am_gguf_string(&text, &bytes, a, "kv.u8"), AM_EFORMAT);
    const am_gguf_array *array;
    ck_assert_int_eq(am_gguf_array_find(&array, a, "kv.u8"), AM_EFORMAT);
    am_archive_release(a);

    ck_ok(am_archive_open(&a, DATA("types.safetensors"))); /* no key-values there */
    ck_assert(!am_gguf_has(a, "kv.u8"));
    am_archive_release(a);
}
END_TEST

START_TEST(test_arrays)
{
    am_archive *a = open_types();
    const am_gguf_array *array;
    size_t bytes;
    ck_ok(am_gguf_array_find(&array, a, "kv.strings"));
    ck_assert_int_eq(am_gguf_array_type(array), AM_GGUF_STRING);
    ck_assert_int_eq((int)am_gguf_array_count(array), 3);
    ck_assert_mem_eq(am_gguf_array_string(array, 2, &bytes), "\xc4\xa0the", 5);
    ck_assert_uint_eq(bytes, 5);
    am_gguf_array_string(array, 1, &bytes);
    ck_assert_uint_eq(bytes, 0);
    ck_ok(am_gguf_array_find(&array, a, "kv.ints"));
    ck_assert_int_eq((int)am_gguf_array_int(array, 0), -1);
    ck_assert(am_gguf_array_double(array, 2) == 3);
    ck_ok(am_gguf_array_find(&array, a, "kv.floats"));
    ck_assert(am_gguf_array_double(array, 1) == -2.0);
    ck_ok(am_gguf_array_find(&array, a, "kv.bools"));
    ck_assert_int_eq((int)am_gguf_array_int(array, 0), 1);
    ck_assert_int_eq((int)am_gguf_array_int(array, 1), 0);
    ck_ok(am_gguf_array_find(&array, a, "kv.many"));
    ck_assert_int_eq((int)am_gguf_array_count(array), 100);
    ck_ok(am_gguf_array_find(&array, a, "absent"));
    ck_assert_ptr_null(array);
    am_archive_release(a);
}
END_TEST

/* Everything but arrays of more than 64 items. */
START_TEST(test_metadata)
{
    am_archive *a = open_types();
    ck_assert_str_eq(
        am_archive_metadata(a),
        "{\"general.architecture\":\"test\",\"kv.u8\":255,\"kv.i8\":-128,\"kv.u16\":65535,"
        "\"kv.i16\":-32768,\"kv.u32\":4294967295,\"kv.i32\":-2147483648,"
        "\"kv.u64\":18446744073709551615,\"kv.i64\":-9223372036854775808,"
        "\"kv.f32\":0.10000000149011612,\"kv.f64\":0.1,\"kv.bool\":true,"
        "\"kv.string\":\"\xc3\xa9 \\\"\\n\",\"kv.strings\":[\"a\",\"\",\"\xc4\xa0"
        "the\"],\"kv.ints\":[-1,2,3],\"kv.floats\":[0.5,-2.0],\"kv.bools\":[true,false]}");
    am_archive_release(a);
}
END_TEST

START_TEST(test_plain_types)
{
    static const struct {
        const char *name;
        int dtype;
    } floats[] = {{"f32", AM_F32}, {"bf16", AM_BF16}, {"f16", AM_F16}, {"f64", AM_F64}};
    am_archive *a = open_types();
    ck_assert_str_eq(am_archive_kind(a), "gguf");
    for (size_t k = 0; k < 4; k++) {
        am_tensor *own = get(a, floats[k].name, -1), *t = get(a, floats[k].name, AM_F32);
        ck_assert_int_eq(am_tensor_dtype(own), floats[k].dtype);
        ck_assert_int_eq((int)am_tensor_shape(t)[0], 3); /* rows first, as PyTorch has them */
        ck_assert_int_eq((int)am_tensor_shape(t)[1], 4);
        for (int i = 0; i < 12; i++)
            ck_assert(((float *)am_tensor_data(t))[i] == (float)i / 8 - 0.5f);
        am_tensor_release(own);
        am_tensor_release(t);
    }
    am_tensor *i32 = get(a, "i32", -1), *i64 = get(a, "i64", -1), *t;
    ck_assert_mem_eq(am_tensor_data(i32), ((int32_t[]){-1, 0, 2147483647}), 12);
    ck_assert_mem_eq(am_tensor_data(i64), ((int64_t[]){-1, 9007199254740993}), 16);
    ck_assert_int_eq(am_archive_tensor(&t, a, am_archive_find(a, "i8"), -1, 0), AM_EUNSUP);
    ck_message("stored as I8");
    ck_assert_int_eq(am_archive_tensor(&t, a, am_archive_find(a, "not_read"), -1, 0), AM_EUNSUP);
    ck_message("stored as IQ2_XS");
    am_tensor_release(i32);
    am_tensor_release(i64);
    am_archive_release(a);
}
END_TEST

/* The same bits as gguf.quants.dequantize, subnormal scales included. */
START_TEST(test_quantised_types)
{
    static const char *const names[] = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K",
                                        "Q3_K", "Q4_K", "Q5_K", "Q6_K", "MXFP4"};
    enum { SIMPLE = 5 };
    am_archive *simple = open_types(), *k_quants;
    int fence;
    ck_ok(am_archive_open(&k_quants, DATA("kquants.gguf")));
    ck_ok(am_device_find(&fence, "fence"));
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        am_archive *a = k < SIMPLE ? simple : k_quants;
        int64_t columns = k < SIMPLE ? 64 : 512;
        size_t bytes = (size_t)(3 * columns) * 4;
        char name[16];
        int dtype, ndim;
        const char *stored_as;
        int64_t shape[AM_MAX_DIMS];
        snprintf(name, sizeof name, "%s.f32", names[k]);
        ck_ok(am_archive_info(a, am_archive_find(a, names[k]), &dtype, &stored_as, &ndim, shape));
        ck_assert_str_eq(stored_as, names[k]);
        ck_assert_int_eq(dtype, AM_F32);
        ck_assert(ndim == 2 && shape[0] == 3 && shape[1] == columns);
        am_tensor *t = get(a, names[k], -1), *expected = get(a, name, -1), *narrow, *far;
        ck_assert_mem_eq(am_tensor_data(t), am_tensor_data(expected), bytes);
        narrow = get(a, names[k], AM_BF16);
        ck_assert_int_eq(am_tensor_dtype(narrow), AM_BF16);
        ck_ok(am_archive_tensor(&far, a, am_archive_find(a, names[k]), -1, fence));
        float back[3 * 512];
        ck_ok(am_tensor_read(far, back, bytes));
        ck_assert_mem_eq(back, am_tensor_data(expected), bytes);
        am_tensor *all[] = {t, expected, narrow, far};
        for (int i = 0; i < 4; i++)
            am_tensor_release(all[i]);
    }
    am_archive_release(simple);
    am_archive_release(k_quants);
}
END_TEST

/* ---- hostile files ------------------------------------------------------------------------ */

static am_buffer file;

static void put(const void *data, size_t bytes)
{
    am_buffer_put(&file, data, bytes);
}
static void put_u32(uint32_t v)
{
    put(&v, 4);
}
static void put_u64(uint64_t v)
{
    put(&v, 8);
}
static void put_text(const char *text)
{
    put_u64(strlen(text));
    put(text, strlen(text));
}
static void start(uint32_t version, uint64_t tensors, uint64_t values)
{
    am_buffer_free(&file);
    put("GGUF", 4);
    put_u32(version);
    put_u64(tensors);
    put_u64(values);
}
/* The description of a tensor of one dim. */
static void put_tensor(const char *name, uint64_t size, uint32_t type, uint64_t offset)
{
    put_text(name);
    put_u32(1);
    put_u64(size);
    put_u32(type);
    put_u64(offset);
}
/* Zeros up to the alignment, then `bytes` more. */
static void put_data(size_t bytes)
{
    while (file.bytes % 32 != 0)
        put("", 1);
    while (bytes-- > 0)
        put("", 1);
}
static void expect(int code, const char *message)
{
    int rc = archive_try(file.data, file.bytes);
    ck_assert_msg(rc == code, "%d instead of %d (%s): %s", rc, code, message, am_error_message());
    if (rc != AM_OK) {
        ck_message(message);
        ck_message("served");
    }
    am_buffer_free(&file);
}

START_TEST(test_hostile_header)
{
    start(3, 0, 0);
    expect(AM_OK, "");
    start(2, 0, 0);
    expect(AM_OK, "");
    start(1, 0, 0);
    expect(AM_EFORMAT, "version 1");
    start(4, 0, 0);
    expect(AM_EFORMAT, "version 4");
    start(__builtin_bswap32(3), 0, 0);
    expect(AM_EUNSUP, "version 3 in big endian");
    start(3, UINT64_MAX, 0);
    expect(AM_EFORMAT, "ends inside the header");
    start(3, 0, UINT64_MAX / 13 + 2); /* times 13 is small again */
    expect(AM_EFORMAT, "ends inside the header");
    start(3, 1, 0);
    expect(AM_EFORMAT, "ends inside");
}
END_TEST

START_TEST(test_hostile_values)
{
    start(3, 0, 1);
    put_u64(UINT64_MAX); /* length of the key */
    put("0123456789abc", 13);
    expect(AM_EFORMAT, "ends inside key");
    start(3, 0, 1);
    put_u64(3);
    put("a\0b", 3);
    put_u32(AM_GGUF_U8);
    put("x", 1);
    expect(AM_EFORMAT, "zero byte");
    start(3, 0, 1);
    put_text("k");
    put_u32(13);
    put_u64(0);
    expect(AM_EFORMAT, "\"k\" has value type 13");
    start(3, 0, 1);
    put_text("k");
    put_u32(AM_GGUF_STRING);
    put_u64(1);
    expect(AM_EFORMAT, "ends inside key k");
    start(3, 0, 2);
    for (int i = 0; i < 2; i++) {
        put_text("k");
        put_u32(AM_GGUF_U32);
        put_u32(1);
    }
    expect(AM_EFORMAT, "\"k\" occurs twice");
    start(3, 0, 1);
    put_text("general.alignment");
    put_u32(AM_GGUF_U32);
    put_u32(24);
    expect(AM_EFORMAT, "general.alignment is 24");
    start(3, 0, 1);
    put_text("general.alignment");
    put_u32(AM_GGUF_U32);
    put_u32(0);
    expect(AM_EFORMAT, "general.alignment is 0");
}
END_TEST

static void put_array(const char *key, uint32_t type, uint64_t count)
{
    start(3, 0, 1);
    put_text(key);
    put_u32(AM_GGUF_ARRAY);
    put_u32(type);
    put_u64(count);
}

START_TEST(test_hostile_arrays)
{
    put_array("k", AM_GGUF_U64, UINT64_MAX / 8 + 2); /* times 8 is 8 */
    put_u64(0);
    expect(AM_EFORMAT, "ends inside key k");
    put_array("k", AM_GGUF_STRING, 1ull << 60);
    put_u64(0);
    expect(AM_EFORMAT, "ends inside key k");
    put_array("k", AM_GGUF_STRING, 2);
    put_text("a");
    put_u64(UINT64_MAX);
    expect(AM_EFORMAT, "ends inside key k");
    put_array("k", 99, 0);
    expect(AM_EFORMAT, "value type 99");
    put_array("k", AM_GGUF_U8, 0);
    expect(AM_OK, "");
    put_array("k", AM_GGUF_ARRAY, 2); /* nested: read over */
    for (int i = 0; i < 2; i++) {
        put_u32(AM_GGUF_STRING);
        put_u64(1);
        put_text("inner");
    }
    expect(AM_OK, "");
    put_array("k", AM_GGUF_ARRAY, 1);
    for (int i = 0; i < 10; i++) {
        put_u32(AM_GGUF_ARRAY);
        put_u64(1);
    }
    expect(AM_EFORMAT, "nested too deeply");
}
END_TEST

enum { F32 = 0, Q4_0 = 2 };

START_TEST(test_hostile_tensors)
{
    start(3, 1, 0);
    put_tensor("a", 8, F32, 0);
    put_data(32);
    expect(AM_OK, "");
    start(3, 1, 0);
    put_tensor("a", 8, F32, 0);
    put_data(31);
    expect(AM_EFORMAT, "tensor \"a\": ends at byte 32 of 31");
    start(3, 1, 0);
    put_tensor("a", 8, F32, 0); /* the data would begin after the end */
    expect(AM_EFORMAT, "truncated");
    start(3, 1, 0);
    put_tensor("a", 1ull << 62, F32, 0);
    put_data(32);
    expect(AM_EFORMAT, "too large");
    start(3, 1, 0);
    put_tensor("a", 1ull << 63, F32, 0);
    put_data(32);
    expect(AM_EFORMAT, "too large");
    start(3, 1, 0);
    put_tensor("a", 1, F32, UINT64_MAX & ~31ull);
    put_data(32);
    expect(AM_EFORMAT, "begins at byte");
    start(3, 1, 0);
    put_tensor("a", 1, F32, 4);
    put_data(32);
    expect(AM_EFORMAT, "no multiple of 32");
    start(3, 1, 0);
    put_tensor("a", 33, Q4_0, 0);
    put_data(64);
    expect(AM_EFORMAT, "rows of 33");
    start(3, 1, 0);
    put_tensor("a", 32, 4, 0); /* a type that was taken back */
    put_data(32);
    expect(AM_OK, "");
    start(3, 2, 0);
    put_tensor("a", 1, F32, 0);
    put_tensor("a", 1, F32, 32);
    put_data(64);
    expect(AM_EFORMAT, "\"a\" occurs twice");
    start(3, 2, 0);
    put_tensor("a", 9, F32, 0);
    put_tensor("b", 1, F32, 32);
    put_data(64);
    expect(AM_EFORMAT, "overlap those of \"a\"");
    start(3, 1, 0);
    put_text("a");
    put_u32(9); /* dims */
    put_data(128);
    expect(AM_EFORMAT, "9 dims");
    start(3, 1, 0);
    put_text("a");
    put_u32(2);
    put_u64(1ull << 32);
    put_u64(1ull << 32);
    put_u32(F32);
    put_u64(0);
    put_data(32);
    expect(AM_EFORMAT, "too large");
    start(3, 2, 0);
    put_tensor("empty", 0, F32, 0);
    put_tensor("b", 1, F32, 0);
    put_data(4);
    expect(AM_OK, "");
}
END_TEST

START_TEST(test_truncated_and_flipped)
{
    archive_torture(DATA("types.gguf"), 31); /* padding after the last tensor */
}
END_TEST

START_TEST(test_open_without_memory)
{
    int failures = 0;
    for (int64_t k = 1;; k++, failures++) {
        am_archive *a = NULL;
        am_mem_fail_at(k);
        int rc = am_archive_open(&a, DATA("types.gguf"));
        am_mem_fail_at(0);
        am_archive_release(a);
        if (rc == AM_OK)
            break;
        ck_assert_int_eq(rc, AM_ENOMEM);
    }
    ck_assert_int_ge(failures, 20);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_scalars,
        test_arrays,
        test_metadata,
        test_plain_types,
        test_quantised_types,
        test_hostile_header,
        test_hostile_values,
        test_hostile_arrays,
        test_hostile_tensors,
        test_truncated_and_flipped,
        test_open_without_memory,
    };
    return run_suite("gguf", tests, sizeof tests / sizeof *tests);
}
