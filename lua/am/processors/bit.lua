-- The image processor of BiT, which DINOv2 uses: CLIP's.

return { images = { BitImageProcessor = require("am.processors.clip").images.CLIPImageProcessor } }
