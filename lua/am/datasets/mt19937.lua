-- MT19937 (Matsumoto, Nishimura 1998) as NumPy's RandomState and Python's random draw from it: orders of
-- the original that must come out the same. What is new here takes philox.lua.

local ffi = require("ffi")
local bit = require("bit")

local M = {}

local band, bor, bxor, rshift, lshift = bit.band, bit.bor, bit.bxor, bit.rshift, bit.lshift
local N, MIDDLE = 624, 397

local Generator = {}
Generator.__index = Generator

-- a * b mod 2^32 of two whole numbers below 2^32.
local function multiply(a, b)
    local high = math.floor(a / 65536)
    return (((high * b) % 65536) * 65536 + (a % 65536) * b) % 4294967296
end

local function new()
    return setmetatable({ state = ffi.new("uint32_t[?]", N), at = N }, Generator)
end

local function seed_one(self, seed)
    local word = seed
    for i = 0, N - 1 do
        self.state[i] = word
        word = (multiply(1812433253, bxor(word, rshift(word, 30)) % 4294967296) + i + 1) % 4294967296
    end
    return self
end

--- numpy.random.RandomState(seed), 0 <= seed < 2^32.
function M.numpy(seed)
    return seed_one(new(), seed)
end

--- random.Random(seed) of Python, 0 <= seed < 2^32 (init_by_array with one key).
function M.python(seed)
    local self = seed_one(new(), 19650218)
    local state, i = self.state, 1
    local function mixed(factor)
        local before = state[i - 1]
        return bxor(state[i], multiply(bxor(before, rshift(before, 30)) % 4294967296, factor) % 4294967296) % 4294967296
    end
    local function advance()
        i = i + 1
        if i == N then
            state[0], i = state[N - 1], 1
        end
    end
    for _ = 1, N do
        state[i] = (mixed(1664525) + seed) % 4294967296
        advance()
    end
    for _ = 1, N - 1 do
        state[i] = (mixed(1566083941) - i) % 4294967296
        advance()
    end
    state[0] = 0x80000000
    return self
end

local function refill(self)
    local s = self.state
    for i = 0, N - 1 do
        local y = bor(band(s[i], 0x80000000), band(s[(i + 1) % N], 0x7fffffff))
        local word = bxor(s[(i + MIDDLE) % N], rshift(y, 1))
        s[i] = band(y, 1) == 0 and word or bxor(word, 0x9908b0df)
    end
    self.at = 0
end

--- The next 32 bits, as a signed number of bit operations.
function Generator:bits()
    if self.at == N then
        refill(self)
    end
    local y = self.state[self.at]
    self.at = self.at + 1
    y = bxor(y, rshift(y, 11))
    y = bxor(y, band(lshift(y, 7), 0x9d2c5680))
    y = bxor(y, band(lshift(y, 15), 0xefc60000))
    return bxor(y, rshift(y, 18))
end

-- The smallest 2^k - 1 that is at least n, n < 2^31.
local function mask_of(n)
    local mask = n
    for _, shift in ipairs { 1, 2, 4, 8, 16 } do
        mask = bor(mask, rshift(mask, shift))
    end
    return mask
end

--- RandomState.shuffle of array[0 … n-1], a C array of numbers, n < 2^31, in place.
function Generator:shuffle(array, n)
    local mask = mask_of(n - 1)
    for i = n - 1, 1, -1 do
        if i <= rshift(mask, 1) then
            mask = rshift(mask, 1)
        end
        local j
        repeat
            j = band(self:bits(), mask)
        until j <= i
        array[i], array[j] = array[j], array[i]
    end
end

--- random.shuffle of a Lua array, in place.
function Generator:shuffle_list(list)
    for i = #list - 1, 1, -1 do
        local width, n = 0, i + 1
        while n > 0 do
            width, n = width + 1, rshift(n, 1)
        end
        local j
        repeat
            j = rshift(self:bits(), 32 - width)
        until j <= i
        list[i + 1], list[j + 1] = list[j + 1], list[i + 1]
    end
end

--- random.random(): a number from 0 up to 1, of 53 bits.
function Generator:random()
    local a, b = rshift(self:bits(), 5), rshift(self:bits(), 6)
    return (a * 67108864 + b) / 9007199254740992
end

--- random.gauss(mean, deviation): two are made at a time, and the second is kept for the next call.
function Generator:gauss(mean, deviation)
    local z = self.kept
    self.kept = nil
    if not z then
        local angle = self:random() * (2 * math.pi)
        local radius = math.sqrt(-2 * math.log(1 - self:random()))
        z, self.kept = math.cos(angle) * radius, math.sin(angle) * radius
    end
    return mean + z * deviation
end

return M
