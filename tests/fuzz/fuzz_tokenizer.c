/* fuzz_tokenizer.c — a hostile tokenizer.json and a hostile text for it. The input is the file, a
 * NUL and the text. */
#include "fuzz_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const uint8_t *nul = memchr(data, 0, bytes);
    size_t json_bytes = nul ? (size_t)(nul - data) : bytes;
    const char *text = nul ? (const char *)nul + 1 : (const char *)data;
    am_tokenizer *t;
    if (am_tokenizer_from_json(&t, (const char *)data, json_bytes) == AM_OK)
        use_tokenizer(t, text, nul ? bytes - json_bytes - 1 : bytes);
    return 0;
}
