/* fuzz_sentencepiece.c — any bytes as a SentencePiece model, which then encodes them. */
#include "fuzz_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const char text[] = "the e\xcc\x81 model  <s>a\xe2\x96\x81 b";
    am_tokenizer *t;
    if (am_tokenizer_from_sentencepiece(&t, data, bytes) == AM_OK)
        use_tokenizer(t, text, sizeof text - 1);
    return 0;
}
