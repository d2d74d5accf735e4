/* fuzz_trackers.c — any bytes as what a tracker's server answers, and as a run's training.jsonl.
 * What is done with them is in readers.lua. */
#include "fuzz_lua.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    return read_in_lua("trackers", data, bytes);
}
