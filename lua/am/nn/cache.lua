-- A key/value cache for generation: one pair of buffers a layer, filled from the left.

local err = require("am.core.error")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local Cache = {}
Cache.__index = Cache

--- A cache for rows of at most `length` tokens. Its buffers are made as layers append. Release it with
--- cache:release().
function Cache.new(length)
    return setmetatable({ used = 0, length = length, layers = {} }, Cache)
end

-- A buffer for what is like x [B, T, K, D] but for its length.
local function buffer(x, length)
    return scope.escape(tensor.zeros({ x:size(0), length, x:size(2), x:size(3) },
                                     { dtype = x:dtype(), device = x:device() }))
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
    if not store then
        store = { k = buffer(k, self.length), v = buffer(v, self.length) }
        self.layers[layer] = store
    end
    return tensor.append(store.k, k, self.used), tensor.append(store.v, v, self.used)
end

--- Count t more tokens, once every layer has appended theirs.
function Cache:advance(t)
    self.used = self.used + t
end

--- Forget all tokens; the buffers stay.
function Cache:reset()
    self.used = 0
end

--- Free the stored keys and values now.
function Cache:release()
    for _, store in pairs(self.layers) do
        store.k:release()
        store.v:release()
    end
    self.layers = {}
end

return Cache
