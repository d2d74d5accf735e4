-- A run of 30 steps that reports to every tracker, for trackers_check.sh: killed at step 19, resumed from a
-- checkpoint at step 12, and ended. Trains nothing.
-- usage: luajit tests/parity/trackers_run.lua DIR MLFLOW_URI
-- W&B is told by the environment (WANDB_BASE_URL, WANDB_API_KEY).

local json = require("am.utils.json")
local jsonl = require("am.loggers.jsonl")
local loggers = require("am.loggers")
local path = require("am.utils.path")

local dir, mlflow_uri = arg[1], arg[2]
local STEPS, SAVED, KILLED = 30, 12, 19
local state_file = path.join(dir, "trackers.json")

local sections = {
    tensorboard = { log_dir = path.join(dir, "tensorboard") },
    wandb = { project = "check", tags = { "a", "b" } },
    mlflow = { tracking_uri = mlflow_uri, experiment_name = "check & try", run_name = "first",
               tags = { team = "x" }, description = "what for" },
}

local function run(first, resumed_from)
    return { dir = dir, model_name = "org/model", start_step = first, total_steps = STEPS, resumed_from = resumed_from,
             config = { model = { name = "org/model", text_config = { a = true } }, seed = 42,
                        optimizer = { lr = 1e-5, betas = json.array { 0.9, 0.999 } } },
             config_text = "seed: 42\noptimizer: {lr: 1.0e-5}\n" }
end

local function keep(file, record)
    record.timestamp = jsonl.timestamp()
    file:write(record)
    return record
end

local function train(trackers, first, last)
    local function file(name, keys)
        return jsonl.open(path.join(dir, name), { keys = keys, resume_step = first })
    end
    local training = file("training.jsonl", jsonl.TRAINING)
    local default, squad = file("validation.jsonl", jsonl.VALIDATION), file("validation_squad.jsonl", jsonl.VALIDATION)
    for step = first, last do
        trackers:train(keep(training, {
            step = step, epoch = 0, loss = 4 - step / 10, grad_norm = step == 25 and 0 / 0 or 1.5, lr = 1e-5 * step,
            mem = 0.5, tps = 100, tps_per_gpu = 100, num_tokens_per_step = 64, num_label_tokens = 32,
        }))
        if step % 10 == 9 then
            trackers:validation("default", keep(default, {
                step = step, epoch = 0, val_loss = 5 - step / 10, lr = 1e-5, num_label_tokens = 7, mem = 0.5,
            }))
            trackers:validation("squad", keep(squad, {
                step = step, epoch = 0, val_loss = 6 - step / 10, lr = 1e-5, num_label_tokens = 8, mem = 0.5,
            }))
        end
    end
    training:close()
    default:close()
    squad:close()
end

-- Long enough for what waits to be sent at its time.
local function pass_time(trackers)
    local stop = os.time() + 6
    while os.time() < stop do end
    for _, entry in ipairs(trackers.entries) do
        if entry.tracker.poll then
            entry.tracker:poll()
        end
    end
end

if arg[3] == "killed" then
    local trackers = loggers.open(sections, run(0))
    trackers:sample(0, "What?", "größer & <b>")
    train(trackers, 0, SAVED)
    trackers:flush()
    path.write_file(state_file, json.encode(trackers:state_dict()))
    train(trackers, SAVED + 1, KILLED)
    pass_time(trackers) -- the servers have steps that the resumed run makes again
    os.exit(9)
end
local trackers = loggers.new(sections)
trackers:load_state_dict(json.decode(path.read_file(state_file)))
trackers:open(run(SAVED + 1, "epoch_0_step_" .. SAVED))
train(trackers, SAVED + 1, STEPS - 1)
trackers:sample(STEPS - 1, "What?", "last")
trackers:finish("finished")
