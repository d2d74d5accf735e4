/* fuzz_csv.c — any bytes as rows of CSV and TSV. What is done with them is in readers.lua. */
#include "fuzz_lua.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    return read_in_lua("csv", data, bytes);
}
