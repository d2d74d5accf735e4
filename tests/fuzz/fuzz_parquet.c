/* fuzz_parquet.c — read rows of any bytes as a Parquet file, in order and not. */
#include "c/served_file.h"

enum { ROWS = 50 };

static uint64_t use_row(am_parquet *p, int64_t i)
{
    const am_parquet_value *v;
    int64_t n;
    uint64_t sum = 0;
    if (am_parquet_row(p, i, &v, &n) != AM_OK)
        return 0;
    for (int64_t k = 0; k < n; k++)
        for (int32_t b = 0; v[k].kind == AM_PARQUET_TEXT && b < v[k].count; b++)
            sum += (uint64_t)v[k].text[b];
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static volatile uint64_t sink;
    am_parquet *p;
    serve(data, bytes);
    if (am_parquet_open(&p, "fuzz") != AM_OK)
        return 0;
    int64_t rows = am_parquet_rows(p);
    sink += strlen(am_parquet_schema(p));
    for (int64_t i = 0; i < rows && i < ROWS; i++)
        sink += use_row(p, i);
    for (int64_t i = 0; i < rows && i < ROWS; i += 3)
        sink += use_row(p, (rows < ROWS ? rows : ROWS) - 1 - i);
    am_parquet_release(p);
    return 0;
}
