/* fuzz_pattern.c — a regular expression of a configuration and, after a zero byte, what it is
 * searched in: an answer or an error, soon. */
#include <string.h>

#include "am.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const char *text = (const char *)data, *end = bytes ? memchr(text, 0, bytes) : NULL;
    size_t length = end ? (size_t)(end - text) : bytes;
    am_pattern *p;
    int found;
    if (am_pattern_new(&p, text, length) != AM_OK)
        return 0;
    if (end)
        (void)am_pattern_search(p, end + 1, bytes - length - 1, &found);
    am_pattern_release(p);
    return 0;
}
