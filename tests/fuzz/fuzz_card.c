/* fuzz_card.c — any bytes as the README.md of a data set. What is done with them is in readers.lua.
 */
#include "fuzz_lua.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    return read_in_lua("card", data, bytes);
}
