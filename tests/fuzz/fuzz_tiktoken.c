/* fuzz_tiktoken.c — any bytes as a tiktoken file, or when they begin as an object does as a
 * tekken.json. */
#include "fuzz_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const char text[] = "ab the\xff 12 \xc3\xa9";
    const char *file = (const char *)data;
    am_tokenizer *t;
    int rc = bytes && data[0] == '{' ? am_tokenizer_from_tekken(&t, file, bytes)
                                     : am_tokenizer_from_tiktoken(&t, file, bytes, "qwen");
    if (rc == AM_OK)
        use_tokenizer(t, text, sizeof text - 1);
    return 0;
}
