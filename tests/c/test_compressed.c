/* test_compressed.c — decompressing blocks of the wrong size, and files that are cut off, damaged
 * or beyond measure. */
#include <snappy-c.h>
#include <zlib.h>
#include <zstd.h>

#include "io/compressed.h"
#include "io_helpers.h"

enum { TEXT = 3000, ROOM = 8000 };

static void make_text(char text[TEXT])
{
    for (int i = 0; i < TEXT; i++)
        text[i] = (char)('a' + i * i % 23);
}

/* The text by a codec; gzip's with its own header and sums. */
static size_t compress_text(uint8_t out[ROOM], const char text[TEXT], int codec)
{
    size_t n = ROOM;
    if (codec == AM_CODEC_SNAPPY) {
        ck_assert_int_eq(snappy_compress(text, TEXT, (char *)out, &n), SNAPPY_OK);
    } else if (codec == AM_CODEC_ZSTD) {
        n = ZSTD_compress(out, ROOM, text, TEXT, 3);
        ck_assert(!ZSTD_isError(n));
    } else {
        z_stream z = {0};
        ck_assert_int_eq(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
        z.next_in = (Bytef *)(uintptr_t)text;
        z.avail_in = TEXT;
        z.next_out = out;
        z.avail_out = ROOM;
        ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
        n = z.total_out;
        deflateEnd(&z);
    }
    return n;
}

START_TEST(test_blocks)
{
    static const int codecs[] = {AM_CODEC_SNAPPY, AM_CODEC_GZIP, AM_CODEC_ZSTD};
    char text[TEXT];
    uint8_t packed[ROOM];
    make_text(text);
    for (int c = 0; c < 3; c++) {
        size_t n = compress_text(packed, text, codecs[c]);
        char *out = malloc(TEXT), *larger = malloc(TEXT + 1), *smaller = malloc(TEXT - 1);
        ck_ok(am_decompress(out, TEXT, codecs[c], packed, n));
        ck_assert_mem_eq(out, text, TEXT);
        ck_assert_int_eq(am_decompress(larger, TEXT + 1, codecs[c], packed, n), AM_EFORMAT);
        ck_assert_int_eq(am_decompress(smaller, TEXT - 1, codecs[c], packed, n), AM_EFORMAT);
        for (size_t cut = 0; cut < n; cut++) {
            uint8_t *exact = malloc(cut);
            memcpy(exact, packed, cut);
            ck_assert_int_eq(am_decompress(out, TEXT, codecs[c], exact, cut), AM_EFORMAT);
            free(exact);
        }
        free(out);
        free(larger);
        free(smaller);
    }
    ck_assert_int_eq(am_decompress(packed, 1, 5, text, 1), AM_EUNSUP);
    ck_message("LZ4; UNCOMPRESSED, SNAPPY, GZIP and ZSTD are read");
    ck_assert_int_eq(am_decompress(packed, 2, AM_CODEC_NONE, text, 1), AM_EFORMAT);
}
END_TEST

static const char *write_file(const char *name, const void *data, size_t bytes)
{
    const char *path = folder_path(name);
    FILE *f = fopen(path, "wb");
    ck_assert_uint_eq(fwrite(data, 1, bytes, f), bytes);
    fclose(f);
    return path;
}

START_TEST(test_files)
{
    char text[TEXT], back[TEXT + 1];
    uint8_t packed[ROOM];
    int fd;
    make_text(text);
    for (int c = 0; c < 2; c++) {
        size_t n = compress_text(packed, text, c ? AM_CODEC_ZSTD : AM_CODEC_GZIP);
        ck_assert_int_eq(am_compression(packed, n), c ? AM_COMPRESSION_ZSTD : AM_COMPRESSION_GZIP);
        ck_ok(am_file_decompress(&fd, write_file("whole", packed, n), folder_path("rows")));
        ck_assert_int_eq((int)pread(fd, back, sizeof back, 0), TEXT);
        ck_assert_mem_eq(back, text, TEXT);
        close(fd);
        for (size_t cut = 1; cut < n; cut++) {
            int rc = am_file_decompress(&fd, write_file("cut", packed, cut), folder_path("rows"));
            ck_assert_int_eq(rc, AM_EFORMAT);
            ck_message("cut: ");
        }
        ck_assert_int_eq(folder_count(), 2); /* what was written has no name */
        unlink(folder_path("cut"));
        unlink(folder_path("whole"));
    }
    ck_assert_int_eq(am_file_decompress(&fd, write_file("text", text, TEXT), folder_path("rows")),
                     AM_EFORMAT);
    ck_message("neither gzip nor zstd");
    ck_assert_int_eq(am_file_decompress(&fd, write_file("none", "", 0), folder_path("rows")),
                     AM_EFORMAT);
    ck_assert_int_eq(am_file_decompress(&fd, folder_path("absent"), folder_path("rows")), AM_EIO);
    ck_assert_int_eq(am_file_decompress(&fd, folder_path("text"), "/nowhere/rows"), AM_EIO);
    ck_message("/nowhere/rows");
}
END_TEST

/* Frames that end where a piece of what is decompressed does. */
START_TEST(test_whole_pieces)
{
    enum { PIECE = 1 << 18, MOST = 4 * PIECE };
    static const size_t frames[][3] = {{PIECE},        {2 * PIECE},    {PIECE, PIECE},
                                       {PIECE, 0, 7},  {7, PIECE - 7}, {PIECE, PIECE, 2 * PIECE},
                                       {PIECE - 1, 1}, {2 * PIECE, 1}};
    char *text = malloc(MOST), *back = malloc(MOST + 1);
    uint8_t *packed = malloc(MOST);
    for (int i = 0; i < MOST; i++)
        text[i] = (char)('a' + i % 251 % 23);
    for (size_t c = 0; c < sizeof frames / sizeof *frames; c++) {
        size_t n = 0, bytes = 0;
        int fd;
        for (int k = 0; k < 3; k++) { /* of no bytes: a frame all the same */
            n += ZSTD_compress(packed + n, MOST - n, text + bytes, frames[c][k], 3);
            bytes += frames[c][k];
        }
        ck_ok(am_file_decompress(&fd, write_file("whole", packed, n), folder_path("rows")));
        ck_assert_int_eq((int)pread(fd, back, MOST + 1, 0), (int)bytes);
        ck_assert_mem_eq(back, text, bytes);
        close(fd);
        ck_assert_int_eq(
            am_file_decompress(&fd, write_file("cut", packed, n - 1), folder_path("rows")),
            AM_EFORMAT);
    }
    free(text);
    free(back);
    free(packed);
}
END_TEST

static ssize_t no_room(int fd, const void *data, size_t bytes)
{
    (void)fd, (void)data, (void)bytes;
    errno = ENOSPC;
    return -1;
}

START_TEST(test_full_disk)
{
    char text[TEXT];
    uint8_t packed[ROOM];
    int fd;
    make_text(text);
    const char *path = write_file("whole", packed, compress_text(packed, text, AM_CODEC_GZIP));
    am_file_system.write = no_room;
    ck_assert_int_eq(am_file_decompress(&fd, path, folder_path("rows")), AM_EIO);
    ck_message("No space left");
    ck_assert_int_eq(folder_count(), 1);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_blocks, test_files, test_whole_pieces, test_full_disk};
    return run_suite("compressed", tests, sizeof tests / sizeof *tests);
}
