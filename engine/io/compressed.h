/* compressed.h — decompressing: blocks of known size, and whole files (am_file_decompress). */
#ifndef AM_COMPRESSED_H
#define AM_COMPRESSED_H

#include <stddef.h>
#include "../am.h"

enum { /* Parquet's numbers */
       AM_CODEC_NONE,
       AM_CODEC_SNAPPY,
       AM_CODEC_GZIP,
       AM_CODEC_ZSTD = 6
};
const char *am_codec_name(int codec); /* Parquet's name, also of codecs that are not read */

/* Write exactly `bytes` bytes to out. AM_EFORMAT when the data is damaged or holds more or fewer,
 * AM_EUNSUP for another codec. */
int am_decompress(void *out, size_t bytes, int codec, const void *data, size_t data_bytes);

#endif
