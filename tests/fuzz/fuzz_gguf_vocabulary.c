/* fuzz_gguf_vocabulary.c — the tokenizer in the metadata of any bytes that open as a GGUF file. */
#include "c/served_file.h"
#include "fuzz_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const char text[] = "the e\xcc\x81 model  <s>a\xe2\x96\x81 b 12";
    am_archive *a;
    am_tokenizer *t;
    serve(data, bytes);
    if (am_archive_open(&a, "fuzz") != AM_OK)
        return 0;
    int rc = am_tokenizer_from_gguf(&t, a);
    am_archive_release(a);
    if (rc == AM_OK)
        use_tokenizer(t, text, sizeof text - 1);
    return 0;
}
