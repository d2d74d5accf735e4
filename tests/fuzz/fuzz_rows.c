/* fuzz_rows.c — any bytes as a file of rows that is told by its content: compressed ones too. What
 * is done with them is in readers.lua. */
#include "fuzz_lua.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    return read_in_lua("rows", data, bytes);
}
