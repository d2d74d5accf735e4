/* fuzz_gguf.c — open any bytes as a GGUF file and use all that it holds. The keys of the seeds are
 * asked for through the accessors the tokenizer uses. */
#include "c/served_file.h"
#include "io/gguf.h"

static void use_values(const am_archive *a)
{
    static const char *const keys[] = {"i", "f", "b", "s", "as", "ai", "af", "aa"};
    static volatile double sink;
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        int64_t i = 0;
        double f = 0;
        int b = 0;
        const char *text = "";
        size_t bytes = 0;
        const am_gguf_array *array = NULL;
        (void)am_gguf_int(&i, a, keys[k]);
        (void)am_gguf_double(&f, a, keys[k]);
        (void)am_gguf_bool(&b, a, keys[k]);
        (void)am_gguf_string(&text, &bytes, a, keys[k]);
        sink = sink + (double)i + f + b + (bytes ? text[bytes - 1] : 0);
        if (am_gguf_array_find(&array, a, keys[k]) != AM_OK || !array)
            continue;
        int type = am_gguf_array_type(array);
        for (int64_t j = 0; j < am_gguf_array_count(array) && type != AM_GGUF_ARRAY; j++) {
            if (type == AM_GGUF_STRING) {
                text = am_gguf_array_string(array, j, &bytes);
                sink = sink + (bytes ? text[bytes - 1] : 0);
            } else {
                sink = sink + am_gguf_array_double(array, j);
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    am_archive *a;
    serve(data, bytes);
    if (am_archive_open(&a, "fuzz") != AM_OK)
        return 0;
    use_values(a);
    if (archive_use(a) != 0)
        abort();
    am_archive_release(a);
    return 0;
}
