-- A key/value cache for generation: one pair of buffers a layer, filled from the left.

local err = require("am.core.error")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local Cache = {}
Cache.__index = Cache

--- A cache for `batch` rows of at most `length` tokens. Release it with cache:release().
---@param opts {layers: integer, batch: integer, length: integer, kv_heads: integer,
---  head_dim: integer, dtype: string, device: string}
function Cache.new(opts)
    local self = setmetatable({ used = 0, length = opts.length, layers = {} }, Cache)
    local shape = { opts.batch, opts.length, opts.kv_heads, opts.head_dim }
    local placed = { dtype = opts.dtype, device = opts.device }
    for i = 1, opts.layers do
        self.layers[i] = {
            k = scope.escape(tensor.zeros(shape, placed)),
            v = scope.escape(tensor.zeros(shape, placed)),
        }
    end
    return self
end

--- Store k and v [B, T, K, D] of a layer (1-based) behind what is there; returns views of all so
--- far, without a history. Call advance(T) after the last layer.
function Cache:append(layer, k, v)
    local t = k:size(1)
    if self.used + t > self.length then
        err.raise("state", "the key/value cache holds %d tokens; %d more do not fit after %d",
                  self.length, t, self.used)
    end
    local store = self.layers[layer]
    return tensor.append(store.k, k, self.used), tensor.append(store.v, v, self.used)
end

--- Count t more tokens, once every layer has appended theirs.
function Cache:advance(t)
    self.used = self.used + t
end

--- Free the stored keys and values now.
function Cache:release()
    for _, store in ipairs(self.layers) do
        store.k:release()
        store.v:release()
    end
    self.layers = {}
end

return Cache
