/* compressed.c — gzip (RFC 1952), zstd (RFC 8878) and Snappy by zlib, libzstd and libsnappy.
 * Knows nothing of what is compressed. */
#include "compressed.h"

#include <limits.h>
#include <snappy-c.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "file.h"

const char *am_codec_name(int codec)
{
    static const char *const names[] = {"UNCOMPRESSED", "SNAPPY", "GZIP", "LZO",
                                        "BROTLI",       "LZ4",    "ZSTD", "LZ4_RAW"};
    return codec >= 0 && codec < 8 ? names[codec] : "of an unknown codec";
}

/* ---- blocks ------------------------------------------------------------------------------ */

static int wrong_size(size_t bytes)
{
    return am_fail(AM_EFORMAT, "the data does not decompress to the %zu bytes it should", bytes);
}

static int snappy_block(void *out, size_t bytes, const void *data, size_t data_bytes)
{
    size_t size = 0;
    if (snappy_uncompressed_length(data, data_bytes, &size) != SNAPPY_OK || size != bytes)
        return wrong_size(bytes);
    if (snappy_uncompress(data, data_bytes, out, &size) != SNAPPY_OK || size != bytes)
        return am_fail(AM_EFORMAT, "damaged Snappy data");
    return AM_OK;
}

static int no_zlib(int status)
{
    return am_fail(status == Z_MEM_ERROR ? AM_ENOMEM : AM_EUNSUP, "zlib cannot be used (%d)",
                   status);
}

/* One or more gzip members, or a zlib stream, which some writers call GZIP. */
static int gzip_block(void *out, size_t bytes, const void *data, size_t data_bytes)
{
    enum { EITHER = 32 + MAX_WBITS };
    z_stream z = {0};
    int status = inflateInit2(&z, EITHER);
    if (status != Z_OK)
        return no_zlib(status);
    if (data_bytes > UINT_MAX || bytes > UINT_MAX) {
        inflateEnd(&z);
        return am_fail(AM_EUNSUP, "a block of more than 4 GiB");
    }
    z.next_in = (Bytef *)(uintptr_t)data; /* zlib's pointers are not const; it does not write */
    z.avail_in = (uInt)data_bytes;
    z.next_out = out;
    z.avail_out = (uInt)bytes;
    status = inflate(&z, Z_FINISH);
    while (status == Z_STREAM_END && z.avail_in > 0 && inflateReset(&z) == Z_OK)
        status = inflate(&z, Z_FINISH);
    int whole = status == Z_STREAM_END && z.avail_out == 0 && z.avail_in == 0;
    int damaged = status == Z_DATA_ERROR || status == Z_NEED_DICT;
    inflateEnd(&z);
    if (status == Z_MEM_ERROR)
        return no_zlib(status);
    if (damaged)
        return am_fail(AM_EFORMAT, "damaged gzip data");
    return whole ? AM_OK : wrong_size(bytes);
}

static int zstd_block(void *out, size_t bytes, const void *data, size_t data_bytes)
{
    size_t n = ZSTD_decompress(out, bytes, data, data_bytes);
    if (ZSTD_isError(n))
        return am_fail(AM_EFORMAT, "damaged zstd data: %s", ZSTD_getErrorName(n));
    return n == bytes ? AM_OK : wrong_size(bytes);
}

int am_decompress(void *out, size_t bytes, int codec, const void *data, size_t data_bytes)
{
    switch (codec) {
    case AM_CODEC_NONE:
        if (bytes != data_bytes)
            return wrong_size(bytes);
        if (bytes > 0)
            memcpy(out, data, bytes);
        return AM_OK;
    case AM_CODEC_SNAPPY:
        return snappy_block(out, bytes, data, data_bytes);
    case AM_CODEC_GZIP:
        return gzip_block(out, bytes, data, data_bytes);
    case AM_CODEC_ZSTD:
        return zstd_block(out, bytes, data, data_bytes);
    default:
        return am_fail(AM_EUNSUP, "%s; UNCOMPRESSED, SNAPPY, GZIP and ZSTD are read",
                       am_codec_name(codec));
    }
}

/* ---- files ------------------------------------------------------------------------------- */

/* Text is rarely a hundredth of its size when it is compressed; what claims to be far more is
 * made to fill a disk. */
enum { PIECE = 1 << 18, ALWAYS = 64 << 20, MAX_RATIO = 250 };

typedef struct stream {
    am_file_writer out;
    int (*take)(struct stream *s, const uint8_t *data, size_t bytes);
    z_stream zlib;
    ZSTD_DStream *zstd;
    void *piece;
    uint64_t in, written;
    int inside; /* of a gzip member or a zstd frame */
} stream;

static int put(stream *s, size_t bytes)
{
    s->written += bytes;
    if (s->written > ALWAYS && s->written / MAX_RATIO > s->in)
        return am_fail(AM_EFORMAT,
                       "it decompresses to more than %d times its size, so it is not read; "
                       "decompress it by hand if it should be",
                       MAX_RATIO);
    s->out.total = s->written;
    return am_file_append(&s->out, s->piece, bytes);
}

/* Members may follow one another, and zeros the last. */
static int take_gzip(stream *s, const uint8_t *data, size_t bytes)
{
    z_stream *z = &s->zlib;
    z->next_in = (Bytef *)(uintptr_t)data;
    z->avail_in = (uInt)bytes;
    do {
        while (!s->inside && z->avail_in > 0 && *z->next_in == 0)
            z->next_in++, z->avail_in--;
        if (!s->inside && z->avail_in == 0)
            return AM_OK;
        if (!s->inside && inflateReset(z) != Z_OK)
            return am_fail(AM_EFORMAT, "damaged gzip data");
        s->inside = 1;
        z->next_out = s->piece;
        z->avail_out = PIECE;
        int status = inflate(z, Z_NO_FLUSH);
        if (status == Z_MEM_ERROR)
            return no_zlib(status);
        if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
            return am_fail(AM_EFORMAT, "damaged gzip data: %s", z->msg ? z->msg : "no gzip header");
        s->inside = status != Z_STREAM_END;
        AM_TRY(put(s, PIECE - z->avail_out));
    } while (z->avail_in > 0 || z->avail_out == 0);
    return AM_OK;
}

static int take_zstd(stream *s, const uint8_t *data, size_t bytes)
{
    ZSTD_inBuffer in = {data, bytes, 0};
    ZSTD_outBuffer out;
    do {
        out = (ZSTD_outBuffer){s->piece, PIECE, 0};
        size_t left = ZSTD_decompressStream(s->zstd, &out, &in);
        if (ZSTD_isError(left))
            return am_fail(AM_EFORMAT, "damaged zstd data: %s", ZSTD_getErrorName(left));
        s->inside = left != 0;
        AM_TRY(put(s, out.pos));
        /* asked once more behind a frame's end it would begin the next */
    } while (in.pos < in.size || (s->inside && out.pos == out.size));
    return AM_OK;
}

static int begin_gzip(stream *s)
{
    enum { GZIP = 16 + MAX_WBITS };
    int status = inflateInit2(&s->zlib, GZIP);
    s->take = take_gzip;
    return status == Z_OK ? AM_OK : no_zlib(status);
}

static int begin_zstd(stream *s)
{
    s->zstd = ZSTD_createDStream();
    s->take = take_zstd;
    return s->zstd ? AM_OK : am_fail(AM_ENOMEM, "out of memory for zstd");
}

static int visit(void *context, const void *data, size_t bytes)
{
    stream *s = context;
    if (!s->take) {
        int kind = am_compression(data, bytes);
        if (kind == AM_COMPRESSION_NONE)
            return am_fail(AM_EFORMAT, "it is compressed by neither gzip nor zstd");
        AM_TRY(kind == AM_COMPRESSION_GZIP ? begin_gzip(s) : begin_zstd(s));
    }
    s->in += bytes;
    return s->take(s, data, bytes);
}

int am_compression(const void *data, size_t bytes)
{
    const uint8_t *b = data;
    if (bytes >= 3 && b[0] == 0x1f && b[1] == 0x8b && b[2] == 8)
        return AM_COMPRESSION_GZIP;
    if (bytes < 4)
        return AM_COMPRESSION_NONE;
    int frame = b[0] == 0x28 && b[1] == 0xb5 && b[2] == 0x2f && b[3] == 0xfd;
    int skippable = (b[0] & 0xf0) == 0x50 && b[1] == 0x2a && b[2] == 0x4d && b[3] == 0x18;
    return frame || skippable ? AM_COMPRESSION_ZSTD : AM_COMPRESSION_NONE;
}

int am_file_decompress(int *fd, const char *path, const char *beside)
{
    stream s = {0};
    int rc;
    AM_TRY_OUT(am_alloc(&s.piece, PIECE));
    AM_TRY_OUT(am_file_begin_unnamed(&s.out, beside, 0));
    AM_TRY_OUT(am_file_scan(path, visit, &s));
    if (s.inside || !s.take) {
        rc = am_fail(AM_EFORMAT, "the compressed data has no end (file cut off?)");
        goto out;
    }
    *fd = am_file_take(&s.out);
out:
    if (s.take == take_gzip)
        inflateEnd(&s.zlib);
    ZSTD_freeDStream(s.zstd);
    am_file_discard(&s.out);
    am_free(s.piece);
    return rc == AM_EFORMAT ? am_fail_context(rc, "%s", path) : rc;
}
