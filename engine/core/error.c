/* error.c — the thread's error message. Fixed buffers, so that it works when memory is out.
 * Holds no policy: who raises what is said where it is raised. */
#include "error.h"

#include <stdio.h>
#include <string.h>

#include "../backend.h"

enum { MESSAGE_MAX = 1024 };
static _Thread_local char message[MESSAGE_MAX];

const char *am_error_message(void)
{
    return message;
}

const char *am_error_name(int code)
{
    static const char *const names[] = {"ok",    "invalid",     "shape",      "memory",
                                        "io",    "format",      "device",     "comm",
                                        "state", "unsupported", "interrupted"};
    return code >= 0 && code < (int)(sizeof names / sizeof *names) ? names[code] : "?";
}

int am_fail_va(int code, const char *fmt, va_list ap)
{
    vsnprintf(message, sizeof message, fmt, ap);
    return code;
}

int am_fail(int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    am_fail_va(code, fmt, ap);
    va_end(ap);
    return code;
}

int am_fail_context(int code, const char *fmt, ...)
{
    char old[MESSAGE_MAX];
    memcpy(old, message, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int written = vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    if (written < 0)
        return code;
    /* What does not fit any more is cut off. */
    size_t n = strlen(message), room = sizeof message - n - 1;
    const char *parts[] = {": ", old};
    for (int i = 0; i < 2; i++) {
        size_t m = strnlen(parts[i], room);
        memcpy(message + n, parts[i], m);
        n += m;
        room -= m;
    }
    message[n] = '\0';
    return code;
}

int am_kernel_fail(int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    am_fail_va(code, fmt, ap);
    va_end(ap);
    return code;
}
