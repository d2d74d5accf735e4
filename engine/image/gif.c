/* gif.c — a GIF's first frame by giflib, on the canvas as Pillow shows it: as large as the screen
 * and the frame need; what the frame does not cover is its transparent colour, else the first one.
 */
#include <string.h>

#include <gif_lib.h>

#include "../core/mem.h"
#include "image.h"

static int read_bytes(GifFileType *gif, GifByteType *to, int n)
{
    am_image_bytes *rest = gif->UserData;
    size_t take = rest->bytes < (size_t)n ? rest->bytes : (size_t)n;
    memcpy(to, rest->data, take);
    rest->data += take;
    rest->bytes -= take;
    return (int)take;
}

static int damaged(int code)
{
    const char *what = GifErrorString(code);
    return am_fail(AM_EFORMAT, "damaged GIF: %s", what ? what : "unknown error");
}

/* Skip extensions up to the first frame, noting its transparent colour. */
static int find_frame(GifFileType *gif, int *transparent)
{
    *transparent = NO_TRANSPARENT_COLOR;
    for (;;) {
        GifRecordType type = UNDEFINED_RECORD_TYPE;
        if (DGifGetRecordType(gif, &type) == GIF_ERROR)
            return damaged(gif->Error);
        if (type == IMAGE_DESC_RECORD_TYPE)
            return DGifGetImageDesc(gif) == GIF_ERROR ? damaged(gif->Error) : AM_OK;
        if (type == TERMINATE_RECORD_TYPE)
            return am_fail(AM_EFORMAT, "damaged GIF: it has no frame");
        int code = 0;
        GifByteType *block = NULL;
        if (DGifGetExtension(gif, &code, &block) == GIF_ERROR)
            return damaged(gif->Error);
        GraphicsControlBlock control;
        if (code == GRAPHICS_EXT_FUNC_CODE && block &&
            DGifExtensionToGCB(block[0], block + 1, &control) == GIF_OK)
            *transparent = control.TransparentColor;
        while (block) {
            if (DGifGetExtensionNext(gif, &block) == GIF_ERROR)
                return damaged(gif->Error);
        }
    }
}

int am_gif_header(am_image_info *info, am_image_bytes file)
{
    int code = 0, transparent = 0;
    GifFileType *gif = DGifOpen(&file, read_bytes, &code);
    if (!gif)
        return damaged(code);
    int rc = find_frame(gif, &transparent);
    const GifImageDesc *frame = &gif->Image;
    int right = frame->Left + frame->Width, bottom = frame->Top + frame->Height;
    info->width = right > gif->SWidth ? right : gif->SWidth;
    info->height = bottom > gif->SHeight ? bottom : gif->SHeight;
    info->channels = 1;
    info->orientation = 1;
    info->has_alpha = rc == AM_OK && transparent != NO_TRANSPARENT_COLOR;
    (void)DGifCloseFile(gif, &code);
    return rc;
}

static void put(am_picture *p, size_t at, const ColorMapObject *colors, int index, int transparent)
{
    uint8_t *pixel = p->pixels + 4 * at;
    if (!colors) /* without a palette, grey */
        memset(pixel, index, 3);
    else if (index < colors->ColorCount)
        memcpy(pixel,
               (uint8_t[]){colors->Colors[index].Red, colors->Colors[index].Green,
                           colors->Colors[index].Blue},
               3);
    else
        memset(pixel, 0, 3);
    pixel[3] = index == transparent ? 0 : 255;
}

static int read_frame(GifFileType *gif, am_picture *p, int transparent, GifByteType *line)
{
    const GifImageDesc *frame = &gif->Image;
    const ColorMapObject *colors = frame->ColorMap ? frame->ColorMap : gif->SColorMap;
    int fill = transparent != NO_TRANSPARENT_COLOR ? transparent : 0;
    for (size_t i = 0; i < (size_t)p->width * (size_t)p->height; i++)
        put(p, i, colors, fill, transparent);
    static const int first[] = {0, 4, 2, 1, 0}, step[] = {8, 8, 4, 2, 1};
    for (int pass = frame->Interlace ? 0 : 4; pass < (frame->Interlace ? 4 : 5); pass++) {
        for (int y = first[pass]; y < frame->Height; y += step[pass]) {
            if (DGifGetLine(gif, line, frame->Width) == GIF_ERROR)
                return damaged(gif->Error);
            int to = frame->Top + y;
            for (int x = 0; to < p->height && x < frame->Width && frame->Left + x < p->width; x++)
                put(p, (size_t)to * (size_t)p->width + (size_t)(frame->Left + x), colors, line[x],
                    transparent);
        }
    }
    return AM_OK;
}

int am_gif_decode(am_picture *p, am_image_bytes file)
{
    int code = 0, transparent = 0, rc;
    void *line = NULL;
    GifFileType *gif = DGifOpen(&file, read_bytes, &code);
    if (!gif)
        return damaged(code);
    AM_TRY_OUT(find_frame(gif, &transparent));
    AM_TRY_OUT(am_alloc(&line, (size_t)gif->Image.Width + 1));
    rc = read_frame(gif, p, transparent, line);
out:
    am_free(line);
    (void)DGifCloseFile(gif, &code);
    return rc;
}
