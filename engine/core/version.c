/* version.c — what this library is, and those that it is made with. */
#include <gif_lib.h>
#include <oneapi/dnnl/dnnl.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <spng.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>
#include <webp/decode.h>
#include <zlib.h>
#include <zstd.h>
/* After stdio.h, which it does not include itself. */
#include <jpeglib.h>

#include "../am.h"

#ifdef _OPENMP
enum { OPENMP_VERSION = _OPENMP };
#else
enum { OPENMP_VERSION = 0 }; /* clang without a runtime of its own */
#endif

int am_abi(void)
{
    return AM_ABI;
}

const char *am_version(void)
{
    return AM_VERSION;
}

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

const char *am_build(void)
{
    return AM_BUILD_TYPE ", " COMPILER;
}

const char *am_library_version(const char *name)
{
    static char text[64];
    text[0] = '\0';
    if (strcmp(name, "onednn") == 0) {
        const dnnl_version_t *v = dnnl_version();
        snprintf(text, sizeof text, "%d.%d.%d", v->major, v->minor, v->patch);
    } else if (strcmp(name, "pcre2") == 0 && pcre2_config(PCRE2_CONFIG_VERSION, NULL) <= 64) {
        (void)pcre2_config(PCRE2_CONFIG_VERSION, text);
    } else if (strcmp(name, "utf8proc") == 0) {
        snprintf(text, sizeof text, "%s", utf8proc_version());
    } else if (strcmp(name, "zlib") == 0) {
        snprintf(text, sizeof text, "%s", zlibVersion());
    } else if (strcmp(name, "zstd") == 0) {
        snprintf(text, sizeof text, "%s", ZSTD_versionString());
    } else if (strcmp(name, "snappy") == 0) {
        snprintf(text, sizeof text, "%s", AM_SNAPPY_VERSION);
    } else if (strcmp(name, "libjpeg-turbo") == 0) {
        snprintf(text, sizeof text, "%d.%d.%d", LIBJPEG_TURBO_VERSION_NUMBER / 1000000,
                 LIBJPEG_TURBO_VERSION_NUMBER / 1000 % 1000, LIBJPEG_TURBO_VERSION_NUMBER % 1000);
    } else if (strcmp(name, "spng") == 0) {
        snprintf(text, sizeof text, "%s", spng_version_string());
    } else if (strcmp(name, "webp") == 0) {
        int v = WebPGetDecoderVersion();
        snprintf(text, sizeof text, "%d.%d.%d", v >> 16, v >> 8 & 255, v & 255);
    } else if (strcmp(name, "giflib") == 0) {
        snprintf(text, sizeof text, "%d.%d.%d", GIFLIB_MAJOR, GIFLIB_MINOR, GIFLIB_RELEASE);
    } else if (strcmp(name, "openmp") == 0) {
        snprintf(text, sizeof text, "%d", OPENMP_VERSION);
    }
    return text[0] ? text : NULL;
}
