-- PatchEmbedding: pictures cut into patches, each mapped to a vector. That is a convolution whose stride is its
-- kernel, so a matrix product; the weight keeps the convolution's four dims, as checkpoints have it.

local err = require("am.core.error")
local ops = require("am.core.ops")
local Module = require("am.nn.module")

local PatchEmbedding = Module.class("PatchEmbedding")

---@param opts {in_channels: integer, out_features: integer, height: integer, width: integer, bias: boolean?}
---  height and width are a patch's
function PatchEmbedding.new(opts)
    local self = Module.init(PatchEmbedding)
    self.in_channels, self.out_features = opts.in_channels, opts.out_features
    self.height, self.width = opts.height, opts.width
    self:declare("weight", { opts.out_features, opts.in_channels, opts.height, opts.width })
    if opts.bias then
        self:declare("bias", { opts.out_features }, "zeros")
    end
    return self
end

--- Rows and columns of patches in pictures of this many pixels; what is left over at the right and at the bottom
--- belongs to none.
function PatchEmbedding:grid(height, width)
    return math.floor(height / self.height), math.floor(width / self.width)
end

--- pixel_values [N, channels, height, width] -> [N, patches, out_features], row by row of the grid, and the grid's rows
--- and columns. Pixels are rounded to the weight's dtype.
function PatchEmbedding:forward(pixel_values)
    local shape = pixel_values:size()
    if #shape ~= 4 or shape[2] ~= self.in_channels then
        err.raise("shape", "pixel_values must be [pictures, %d, height, width], not [%s]", self.in_channels,
                  table.concat(shape, ", "))
    end
    local n, channels, ph, pw = shape[1], shape[2], self.height, self.width
    local rows, columns = self:grid(shape[3], shape[4])
    if rows < 1 or columns < 1 then
        err.raise("shape", "pictures of %d x %d pixels are smaller than a patch of %d x %d", shape[4], shape[3], pw, ph)
    end
    local x = pixel_values:to(self.weight:dtype())
    if rows * ph < shape[3] then
        x = x:narrow(2, 0, rows * ph)
    end
    if columns * pw < shape[4] then
        x = x:narrow(3, 0, columns * pw)
    end
    x = x:reshape { n, channels, rows, ph, columns, pw }:permute(0, 2, 4, 1, 3, 5)
    x = x:reshape(n, rows * columns, channels * ph * pw)
    return ops.linear(x, self.weight:reshape(self.out_features, channels * ph * pw), self.bias), rows, columns
end

--- What repr shows in brackets.
function PatchEmbedding:extra_repr()
    return string.format("%d, %d, patch=%dx%d, bias=%s", self.in_channels, self.out_features, self.height, self.width,
                         tostring(self.bias ~= nil))
end

return PatchEmbedding
