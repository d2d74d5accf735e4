-- help(x): what it finds for ops, functions, modules, objects and names.

local am = require("am")
local help = require("am.cli.help").text

local function has(text, ...)
    for _, wanted in ipairs { ... } do
        assert.truthy(text:find(wanted, 1, true), wanted .. " is not in " .. text)
    end
end

describe("help", function()
    setup(function() _G.am = am end)
    teardown(function() _G.am = nil end)

    it("without a value tells what there is", function()
        has(help(), "help(x)", "Ctrl-C")
    end)

    it("gives an op's text from the registry, also of ops made in a loop", function()
        local ffi, C = require("ffi"), require("am.core.ffi").C
        has(help(am.ops.matmul), "am.ops.matmul(a, b)\n" .. ffi.string(C.am_op_doc(C.AM_OP_matmul)), "Matrix product")
        has(help(am.ops.maximum), "am.ops.maximum(a, b)", "the larger")
        assert.equal(help(am.ops.add):gsub("^am%.", ""), help "ops.add")
        has(help "gelu", "erf", "approximate")
    end)

    it("gives a function's parameters and doc comment", function()
        has(help(am.scope), "am.scope(fn, ...)\nRun fn(...) in a scope")
        has(help "tensor:backward", "(self, gradient)", "Gradients of all leaves")
        has(help(am.zeros), "am.zeros(shape, opts)")
        has(help(print), "written in C")
        has(help(loadstring("return 1")), "function(...)")
    end)

    it("gives a module's opening comment and its functions with a sentence each", function()
        local text = help "am.peft"
        has(text, "Parameter-efficient fine-tuning", "  merge ", "Fold every adapter")
        assert.equal(text, help(am.peft))
        has(help(require("recipes.llm_finetune")), "The whole run is here", "  step ", "  evaluate ")
        has(help(am.nn.Linear.new(1, 2)), "Linear", "named_parameters")
        has(help(am.zeros { 1 }), "backward", "matmul")
        has(help {}, "table")
    end)

    it("follows dotted names through what is loaded later, and lists the modules in a table", function()
        for _, name in ipairs { "am.nn", "nn" } do
            has(help(name), name .. "\n", "\n  Linear                   Linear: y = x W^T + b.\n", "\n  Attention  ")
        end
        assert.equal(help(am.nn), help "am.nn")
        has(help "am.nn.Linear", "am.nn.Linear\n\nLinear: y = x W^T + b.\n", "\n  forward  ")
        has(help "am.nn.Linear.new", "am.nn.Linear.new(in_features, out_features, bias, bias_init)")
        has(help "am.AutoTokenizer.from_pretrained", "(name, opts)", "A tokenizer from")
        has(help(am.AutoTokenizer), "am.AutoTokenizer", "from_pretrained")
        has(help "am", "what `local am", "\n  matmul  ", "\n  peft  ")
        has(help("mine.scope", { mine = am }), "mine.scope(fn, ...)")
    end)

    it("finds names without a global am", function()
        _G.am = nil
        has(help "am.nn.Linear", "y = x W^T")
        _G.am = am
    end)

    it("says when it knows nothing", function()
        has(help "no.such.thing", "nothing is called no.such.thing")
        has(help(5), "number")
    end)
end)
