-- The image processor of SigLIP: the standard one (image_processor.lua) with its defaults.

return {
    images = {
        SiglipImageProcessor = {
            defaults = {
                do_resize = true, size = { height = 224, width = 224 }, resample = 3, do_rescale = true,
                do_normalize = true, image_mean = 0.5, image_std = 0.5,
            },
            kinds = { size = "shortest" },
        },
    },
}
