/* fuzz_token_rows.c — read any bytes as tokenised rows, as if their checksum were right. */
#include "c/served_file.h"
#include "data/token_rows.h"

static uint64_t sum(const int32_t *values, int64_t n)
{
    uint64_t total = 0;
    for (int64_t k = 0; values && k < n; k++)
        total += (uint64_t)values[k];
    return total;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static volatile uint64_t sink;
    am_mapping *m;
    am_token_rows *r;
    size_t length;
    serve(data, bytes);
    if (am_mapping_open(&m, "fuzz") != AM_OK || am_token_rows_read(&r, m, NULL, 0) != AM_OK)
        return 0;
    const char *text = am_token_rows_metadata(r, &length);
    for (size_t i = 0; i < length; i++)
        sink += (uint64_t)text[i];
    for (int64_t i = 0; i < am_token_rows_count(r); i++) {
        am_token_row row;
        if (am_token_rows_get(&row, r, i) == AM_OK)
            sink += sum(row.input_ids, row.n) + sum(row.labels, row.n) +
                    sum(row.attention_mask, row.n) + sum(row.position_ids, row.n);
    }
    am_token_rows_release(r);
    return 0;
}
