---@meta _
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.recipe
local am_recipe = {}

--- A new recipe; as Recipe:extend.
function am_recipe.extend(name) end

---@class am.recipe.Recipe
local am_recipe_Recipe = {}

--- A recipe that inherits from this one.
function am_recipe_Recipe.extend(parent, name) end

--- Make a recipe object; nothing is loaded before setup.
function am_recipe_Recipe.create(class, source, overrides, opts) end

--- Sections and keys that a configuration may have; recipes add theirs.
function am_recipe_Recipe.schema() end

--- Open training.jsonl and validation.jsonl (validation_NAME.jsonl for a set with a name) beside the
--- checkpoints; lines of `step` (in the latter `validation_step`) and later go.
function am_recipe_Recipe:open_logs(step, validation_step) end

--- Write a record to the log of that name, if there is one: "training", "validation NAME" or "samples".
function am_recipe_Recipe:log_record(name, record) end

--- Close the logs and let other runs into the folder.
function am_recipe_Recipe:close_logs() end

--- Parse, set up, train; SIGTERM and Ctrl-C save and end with status 0 and 130.
function am_recipe_Recipe.run(class, argv) end

--- Overridden by recipes: leave the groups of ranks that were made of the world.
function am_recipe_Recipe.leave_groups() end

--- True once this rank was asked to end by a signal.
function am_recipe_Recipe:stop_requested() end

--- True once any rank was; all ranks ask at the same time.
function am_recipe_Recipe:all_stop() end

--- Save and restore a part with every checkpoint: `file` is its JSON file in the checkpoint's folder,
--- `part` has state_dict() and load_state_dict(state).
function am_recipe_Recipe:track(file, part) end

--- A setting of the checkpoint section, defaults filled in.
function am_recipe_Recipe:checkpoint_setting(key) end

--- The folder that checkpoints and logs are in.
function am_recipe_Recipe:checkpoint_dir() end

--- Overridden by recipes: write the model and the optimizer into a folder / read them back, and what
--- identifies the model (a table of numbers and strings) so that another's checkpoint is refused.
function am_recipe_Recipe.save_model() end

--- Overridden by recipes: see save_model.
function am_recipe_Recipe.load_model() end

--- Overridden by recipes: see save_model.
function am_recipe_Recipe.signature() end

--- Overridden by recipes: the names of the validation sets, in order.
function am_recipe_Recipe.validation_names() end

--- What losses.json calls the loss of a validation set: "val_loss" when it is the only one, else its name.
function am_recipe_Recipe:loss_key(name) end

--- The key of losses.json that decides which checkpoint is the best: checkpoint.best_metric_key's, or the first.
function am_recipe_Recipe:best_key() end

--- What losses.json of the checkpoint that this run came from holds; empty without one.
function am_recipe_Recipe:saved_losses() end

--- Which rows of tensors this rank writes, and into which file: see am.checkpoint.saving.
function am_recipe_Recipe:writers() end

--- Publish epoch_E_step_S with everything tracked. losses: what losses.json holds. Every rank writes a part of the
--- tensors. With checkpoint.is_async they are written beside the steps that follow, and poll_saving publishes it.
function am_recipe_Recipe:save_checkpoint(epoch, step, losses, is_last) end

--- Between two steps: publish a checkpoint that was begun, as soon as all ranks have written it. All ranks call this
--- between the same steps. Raises the error of a file that could not be written.
function am_recipe_Recipe:poll_saving() end

--- Wait until a checkpoint that was begun is published. All ranks call this together.
function am_recipe_Recipe:finish_saving() end

--- Overridden by recipes: raise an error where the run has what no checkpoint can hold.
function am_recipe_Recipe.check_saving() end

--- Overridden by recipes: raise an error where ranks that should hold the same do not.
function am_recipe_Recipe.check_replicas() end

--- The state that this step began with is useless: a checkpoint of it is withdrawn. Returns the
--- newest good one, or nil.
function am_recipe_Recipe:withdraw_checkpoint(step) end

--- Refuse a checkpoint of another model, and one that is damaged. Ranks share the reading.
function am_recipe_Recipe:check_checkpoint(dir) end

--- Keep other runs out of the folder that this one writes into, before anything is loaded.
function am_recipe_Recipe:claim_folder() end

--- Raise an error where a rank can't write into the folder of checkpoints, or has another of its name: as every rank
--- will write a part of each, it is to be known before the first.
function am_recipe_Recipe:check_folder() end

--- The folder of the checkpoint to go on from, which the configuration names, or the newest; nil for a fresh start.
--- All ranks take the one that the first finds.
function am_recipe_Recipe:find_checkpoint() end

--- Go on from the checkpoint of find_checkpoint. Returns its folder, or nil for a fresh start.
function am_recipe_Recipe:load_checkpoint() end

am_recipe.Recipe = am_recipe_Recipe
return am_recipe
