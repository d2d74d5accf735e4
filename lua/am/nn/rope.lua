-- Rotary position frequencies for every scaling type: default, linear, dynamic, yarn, longrope, llama3; and
-- Rotary, the tables of positions that a model's layers share.
-- Formulas and their order of rounding follow transformers' modeling_rope_utils.py, which computes
-- in float32: at position 2048 a last-bit difference in a frequency already moves logits.

local ffi = require("ffi")
local err = require("am.core.error")
local powf = require("am.core.ffi").powf
local ops = require("am.core.ops")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local M = {}

local f32_box = ffi.new("float[1]")

-- Round to float32.
local function f32(x)
    f32_box[0] = x
    return f32_box[0]
end

-- 1 / base^(2i/dim), as torch computes it: the power and its inverse each rounded to float32.
local function plain(base, dim)
    local inv = {}
    for i = 0, dim / 2 - 1 do
        inv[i + 1] = f32(1 / f32(powf(base, f32(2 * i / dim))))
    end
    return inv
end

local function need(scaling, key)
    local v = scaling[key]
    if type(v) ~= "number" or v ~= v or v <= 0 then
        err.raise("format", "rope_scaling of type \"%s\" needs the number \"%s\", above 0",
                  tostring(scaling.rope_type), key)
    end
    return v
end

local types = {}

function types.default(o)
    return plain(o.theta, o.dim), 1
end

function types.linear(o)
    local inv, factor = plain(o.theta, o.dim), need(o.scaling, "factor")
    for i = 1, #inv do
        inv[i] = f32(inv[i] / factor)
    end
    return inv, 1
end

-- NTK-aware: the base grows with the sequence beyond the trained length. transformers has the length
-- as a tensor, which rounds to float32 after every step.
function types.dynamic(o)
    local factor, max = need(o.scaling, "factor"), o.max_position_embeddings
    local length = math.max(o.seq_len or 0, max)
    local stretch = f32(f32(f32(factor * length) / max) - (factor - 1))
    return plain(f32(o.theta * f32(stretch ^ (o.dim / (o.dim - 2)))), o.dim), 1
end

-- YaRN (Peng et al. 2023): high frequencies stay, low ones are interpolated, a ramp between.
function types.yarn(o)
    local s = o.scaling
    local factor = need(s, "factor")
    local original = s.original_max_position_embeddings or o.max_position_embeddings
    local function get_mscale(scale, m)
        return scale <= 1 and 1 or 0.1 * (m or 1) * math.log(scale) + 1
    end
    local attention = s.attention_factor
    if not attention then
        attention = (s.mscale and s.mscale_all_dim)
            and get_mscale(factor, s.mscale) / get_mscale(factor, s.mscale_all_dim)
            or get_mscale(factor)
    end
    local function correction_dim(rotations)
        return o.dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(o.theta))
    end
    local low = correction_dim(s.beta_fast or 32)
    local high = correction_dim(s.beta_slow or 1)
    if s.truncate ~= false then
        low, high = math.floor(low), math.ceil(high)
    end
    low, high = math.max(low, 0), math.min(high, o.dim - 1)
    if low == high then
        high = high + 0.001
    end
    local inv = {}
    for i = 0, o.dim / 2 - 1 do
        local power = f32(powf(o.theta, f32(2 * i / o.dim)))
        local extrapolated, interpolated = f32(1 / power), f32(1 / f32(factor * power))
        local ramp = f32(f32(i - f32(low)) / f32(high - low))
        local keep = f32(1 - math.min(math.max(ramp, 0), 1))
        inv[i + 1] = f32(f32(interpolated * f32(1 - keep)) + f32(extrapolated * keep))
    end
    return inv, attention
end

-- LongRoPE (Ding et al. 2024): a factor for each frequency, one set of them up to the trained length and one
-- beyond it, by the longest position at hand.
function types.longrope(o)
    local s, max = o.scaling, o.max_position_embeddings
    local original = s.original_max_position_embeddings or max
    local factor = s.factor or max / original
    local attention = s.attention_factor
        or (factor <= 1 and 1 or math.sqrt(1 + math.log(factor) / math.log(original)))
    local name = (o.seq_len or 0) > original and "long_factor" or "short_factor"
    local factors, inv = s[name], {}
    if type(factors) ~= "table" or #factors ~= o.dim / 2 then
        err.raise("format", "rope_scaling of type \"longrope\" needs \"%s\", a list of %d numbers", name, o.dim / 2)
    end
    for i = 0, o.dim / 2 - 1 do
        if type(factors[i + 1]) ~= "number" or factors[i + 1] ~= factors[i + 1] or factors[i + 1] <= 0 then
            err.raise("format", "rope_scaling: number %d of \"%s\" is %s, not a number above 0", i + 1, name,
                      tostring(factors[i + 1]))
        end
        inv[i + 1] = f32(1 / f32(f32(factors[i + 1]) * f32(powf(o.theta, f32(2 * i / o.dim)))))
    end
    return inv, attention
end

-- Llama 3.1: by wavelength, with a smooth band between.
function types.llama3(o)
    local s = o.scaling
    local factor = need(s, "factor")
    local low, high = need(s, "low_freq_factor"), need(s, "high_freq_factor")
    local original = need(s, "original_max_position_embeddings")
    local inv = plain(o.theta, o.dim)
    for i = 1, #inv do
        local f = inv[i]
        local wavelength = f32(f32(2 * math.pi) / f)
        if wavelength > original / low then
            inv[i] = f32(f / factor)
        elseif wavelength >= original / high then
            local smooth = f32(f32(f32(original / wavelength) - low) / f32(high - low))
            inv[i] = f32(f32(f32(f32(1 - smooth) * f) / factor) + f32(smooth * f))
        end
    end
    return inv, 1
end

-- Fields of a scaling that may be left out.
local numbers = { "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
                  "mscale_all_dim", "llama_4_scaling_beta" }

--- Inverse frequencies as a Lua array of dim/2 and the scaling of cosines and sines.
---@param o {theta: number, dim: integer, max_position_embeddings: integer, scaling: table?,
---  seq_len: integer?} seq_len only matters for the dynamic type
function M.frequencies(o)
    local kind = o.scaling and o.scaling.rope_type or "default"
    local fn = types[kind]
    if not fn then
        err.raise("unsupported", "rope type \"%s\" is not known; known are default, linear, "
                  .. "dynamic, yarn, longrope, llama3", tostring(kind))
    end
    for _, name in ipairs(numbers) do
        local v = o.scaling and o.scaling[name]
        if v ~= nil and type(v) ~= "number" then
            err.raise("format", "rope_scaling of type \"%s\": \"%s\" must be a number, not %s", kind, name, tostring(v))
        end
    end
    return fn(o)
end

--- True when the frequencies depend on the length of the sequence at hand.
function M.depends_on_length(scaling)
    return scaling ~= nil and (scaling.rope_type == "dynamic" or scaling.rope_type == "longrope")
end

--- A number that stays the same as long as the frequencies do while a sequence grows to `longest` tokens.
function M.stage(o, longest)
    local s = o.scaling
    if not M.depends_on_length(s) then
        return 0
    elseif s.rope_type == "longrope" then
        return longest > (s.original_max_position_embeddings or o.max_position_embeddings) and 1 or 0
    end
    return math.max(longest, o.max_position_embeddings)
end

--- True when the scaling stretches to sequences of any length.
function M.any_length(scaling)
    return scaling ~= nil and scaling.rope_type == "dynamic"
end

--- The same as a float32 tensor [dim/2], and the scaling.
function M.inv_freq(o, device)
    local inv, scaling = M.frequencies(o)
    local array = ffi.new("float[?]", #inv, inv)
    return tensor.from_buffer(array, { #inv }, { dtype = "float32", device = device }), scaling
end

local Rotary = {}
Rotary.__index = Rotary

-- Sections of the frequencies that are turned by a row of positions each.
local function check_sections(sections, n)
    local sum = 0
    if type(sections) ~= "table" then
        err.raise("format", "mrope_section: it must be a list, not %s", tostring(sections))
    end
    for i, count in ipairs(sections) do
        if type(count) ~= "number" or count < 1 or count % 1 ~= 0 then
            err.raise("format", "mrope_section: number %d is %s, not a whole number above 0", i, tostring(count))
        end
        sum = sum + count
    end
    if #sections > 3 or sum ~= n then
        err.raise("format", "mrope_section: %d sections of %d frequencies, but there are %d, for three rows of "
                  .. "positions at most", #sections, sum, n)
    end
end

--- Tables of cosines and sines for positions. o: as frequencies', which are kept until rotary:release(); and for
--- tokens with several rows of positions mrope_section, how many of the frequencies belong to each row, or
--- axial = true: each row has all of them, so that dim numbers are rotated for each.
function M.Rotary(o)
    local inv = M.frequencies(o) -- what it lacks is said before any weight is read
    if o.mrope_section then
        check_sections(o.mrope_section, #inv)
    end
    return setmetatable({ options = o }, Rotary)
end

-- The table of several rows of positions [R, B, T]: the cosines of each in turn, then the sines.
local function table_of_rows(self, position_ids)
    local o, cosines, sines, first = self.options, {}, {}, 0
    for row = 1, o.axial and position_ids:size(0) or #o.mrope_section do
        local n = o.axial and self.inv_freq:size(0) or o.mrope_section[row]
        local part = ops.rope_table(position_ids:select(0, row - 1), self.inv_freq:narrow(0, first, n), self.scaling)
        cosines[row], sines[row] = part:narrow(-1, 0, n), part:narrow(-1, n, n)
        first = o.axial and 0 or first + n
    end
    for _, part in ipairs(sines) do
        cosines[#cosines + 1] = part
    end
    return ops.cat(cosines, -1)
end

--- The table (ops.rope_table) of position_ids int32 [B or 1, T], of which the highest is longest - 1; or of
--- [rows, B or 1, T].
function Rotary:table(position_ids, longest)
    local o = self.options
    if self.inv_freq and M.depends_on_length(o.scaling) then
        self:release()
    end
    if not self.inv_freq then
        self.inv_freq, self.scaling = M.inv_freq(setmetatable({ seq_len = longest }, { __index = o }),
                                                 position_ids:device())
        scope.escape(self.inv_freq)
    end
    if position_ids:dim() == 3 then
        return table_of_rows(self, position_ids)
    end
    return ops.rope_table(position_ids, self.inv_freq, self.scaling)
end

--- Free the frequencies now.
function Rotary:release()
    if self.inv_freq then
        self.inv_freq:release()
        self.inv_freq = nil
    end
end

return M
