-- am.datasets.mt19937: NumPy's and Python's numbers.
local ffi = require("ffi")
local json = require("am.utils.json")
local mt19937 = require("am.datasets.mt19937")
local path = require("am.utils.path")
local helpers = require("tests.lua.datasets.helpers")

describe("am.datasets.mt19937", function()
    local goldens

    setup(function()
        goldens = json.decode(assert(path.read_file("tests/lua/datasets/nanogpt_goldens.json"))).generators[1]
    end)

    it("shuffles as NumPy's RandomState", function()
        local generator = mt19937.numpy(1234)
        for _, expected in ipairs(goldens.numpy) do
            local n = #expected
            local array = ffi.new("int32_t[?]", n)
            for i = 0, n - 1 do
                array[i] = i
            end
            generator:shuffle(array, n)
            assert.same({ unpack(expected) }, helpers.list(array, n))
        end
    end)

    it("takes the highest seed, and goes on after its 624 words", function()
        local generator, words = mt19937.numpy(4294967295), {}
        for i = 1, 700 do
            words[i] = generator:bits() % 4294967296
        end
        assert.same({ unpack(goldens.numpy_words) }, { unpack(words, 697) })
    end)

    it("shuffles and draws as Python's random", function()
        local generator = mt19937.python(12345)
        for _, expected in ipairs(goldens.python) do
            local list = {}
            for i = 1, #expected do
                list[i] = i - 1
            end
            generator:shuffle_list(list)
            assert.same({ unpack(expected) }, list)
        end
        generator = mt19937.python(0)
        for _, expected in ipairs(goldens.random) do
            assert.equal(expected, generator:random())
        end
        for _, expected in ipairs(goldens.gauss) do
            assert.near(expected, generator:gauss(20, 6), 1e-13)
        end
    end)
end)
