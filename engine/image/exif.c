/* exif.c — the orientation tag out of EXIF and XMP, and nothing else of them. Both come from files
 * that are not trusted: every offset is compared with the length before it is followed. */
#include <string.h>

#include "image.h"

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, TYPE_LONG = 4 };

static uint32_t read16(const uint8_t *p, int big)
{
    return big ? (uint32_t)p[0] << 8 | p[1] : (uint32_t)p[1] << 8 | p[0];
}

static uint32_t read32(const uint8_t *p, int big)
{
    return big ? read16(p, 1) << 16 | read16(p + 2, 1) : read16(p + 2, 0) << 16 | read16(p, 0);
}

int am_exif_orientation(am_image_bytes tiff)
{
    const uint8_t *p = tiff.data;
    size_t n = tiff.bytes;
    if (n < 8 || !((p[0] == 'I' && p[1] == 'I') || (p[0] == 'M' && p[1] == 'M')))
        return 0;
    int big = p[0] == 'M';
    size_t at = read32(p + 4, big);
    if (read16(p + 2, big) != 42 || at > n - 2)
        return 0;
    size_t entries = read16(p + at, big);
    at += 2;
    for (size_t i = 0; i < entries && at + 12 <= n; i++, at += 12) {
        if (read16(p + at, big) != TAG_ORIENTATION)
            continue;
        uint32_t type = read16(p + at + 2, big), count = read32(p + at + 4, big), value = 0;
        if (count != 1)
            return 0;
        if (type == TYPE_SHORT)
            value = read16(p + at + 8, big);
        else if (type == TYPE_LONG)
            value = read32(p + at + 8, big);
        return value >= 1 && value <= 8 ? (int)value : 0;
    }
    return 0;
}

int am_xmp_orientation(am_image_bytes xmp)
{
    static const char key[] = "tiff:Orientation";
    const uint8_t *at = xmp.data, *end = xmp.data + xmp.bytes;
    while (at && (at = memmem(at, (size_t)(end - at), key, sizeof key - 1))) {
        at += sizeof key - 1;
        size_t rest = (size_t)(end - at); /* ="6" or >6< */
        const uint8_t *digit = rest >= 3 && at[0] == '=' && at[1] == '"' ? at + 2
                               : rest >= 2 && at[0] == '>'               ? at + 1
                                                                         : NULL;
        if (digit && *digit >= '1' && *digit <= '8')
            return *digit - '0';
    }
    return 0;
}
