-- A signal to one rank at any moment of a run that shares a model: all ranks stop, and the run that goes on does the
-- validation that was left out.
local helper = require("tests.recipe.helper")
local ranks = require("tests.dist.ranks")

-- A hook: the second rank gets SIGTERM at step 3.
local stops = [[return { at = function(args)
    local hook = { name = "stop" }
    hook[args.point] = function(_, recipe)
        if recipe.world.rank == 1 and recipe.scheduler.step == 3 and not recipe.restored then
            os.execute("kill -TERM $PPID")
        end
    end
    return hook
end }]]

ranks.describe("a signal to one rank", function()
    local steps = { step_scheduler = { max_steps = 8, val_every_steps = 4 } }
    local cases = { { 2, { strategy = "ddp", pp_size = 2 }, "before_validation" },
                    { 4, { strategy = "fsdp2", tp_size = 2 }, "before_validation" },
                    { 2, { strategy = "ddp", cp_size = 2 }, "step" } }
    for _, case in ipairs(cases) do
        local n, distributed, point = unpack(case)
        local sizes = distributed.pp_size and "stages" or distributed.tp_size and "shards of matrices" or "shared rows"
        it(("in %s ends %s, and all is learnt and validated as with one"):format(point, sizes), function()
            local dir, one = helper.folder(), ranks.train(1, steps)
            local own = helper.write(dir .. "/own.lua", stops)
            local changes = helper.changes(steps, {
                distributed = distributed, hooks = { { _target_ = own .. ":at", point = point } },
            })
            local words = { "--allow-user-code", "--checkpoint.checkpoint_dir", dir }
            local _, _, errors = ranks.train(n, changes, words)
            assert.matches("a signal to another rank ended the run", errors)
            assert.equal(4, #helper.jsonl(dir .. "/training.jsonl"))
            ranks.train(n, changes, words)
            local many = helper.jsonl(dir .. "/training.jsonl")
            many.validation = helper.jsonl(dir .. "/validation.jsonl")
            assert.equal(#one.validation, #many.validation)
            ranks.compare(one, many)
        end)
    end
end)
