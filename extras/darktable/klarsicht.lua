--[[
Denoise the bursts among the selected images with klarsicht, and import the results.
Copy this file to ~/.config/darktable/lua/, and add the line  require "klarsicht"  to ~/.config/darktable/luarc.
In the lighttable, select the frames of one burst or of several, then press "denoise bursts" in the module
"actions on selection" (or give it a shortcut). The photographs, linear DNGs, appear in the folder "klarsicht" beside
the first frame, and in darktable; they are developed like any raw file. The same selection again makes only what is
not there yet.

The command is klarsicht, unless the preference "klarsicht: command" says otherwise,
as in venv/bin/klarsicht with its full path.
]]

local dt = require "darktable"
local klarsicht = {}

-- Quote one word for the shell of the system.
function klarsicht.quote(word)
  if package.config:sub(1, 1) == "\\" then
    return '"' .. word:gsub('"', '') .. '"'
  end
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

-- Return the distinct files of images, in their order: duplicates in darktable are one file.
function klarsicht.files(images)
  local files, seen = {}, {}
  for _, image in ipairs(images) do
    local file = image.path .. "/" .. image.filename
    if not seen[file] then
      seen[file] = true
      files[#files + 1] = file
    end
  end
  return files
end

-- Return the folder of the results: beside the first frame.
function klarsicht.folder(images)
  return images[1].path .. "/klarsicht"
end

-- Return the command for files, whose lines go to a log.
function klarsicht.command(program, files, folder, log)
  local words = { program, "burst denoise" }
  for _, file in ipairs(files) do
    words[#words + 1] = klarsicht.quote(file)
  end
  words[#words + 1] = "-o " .. klarsicht.quote(folder .. "/{}.dng")
  words[#words + 1] = "> " .. klarsicht.quote(log) .. " 2>&1"
  return table.concat(words, " ")
end

-- Return the photographs that the lines of the command name, and the lines of what failed.
function klarsicht.read_log(lines)
  local photographs, failures = {}, {}
  for line in lines do
    local photograph, rest = line:match("^(.-%.dng): (.*)$")
    if line:match("^left out: ") or line:match("^klarsicht: ") then
      failures[#failures + 1] = line
    elseif photograph and rest:match("^failed: ") then
      failures[#failures + 1] = line
    elseif photograph then
      photographs[#photographs + 1] = photograph
    end
  end
  return photographs, failures
end

-- Denoise the bursts among images, and import the photographs.
function klarsicht.denoise(images)
  if #images == 0 then
    dt.print("klarsicht: no image is selected")
    return
  end
  local log = os.tmpname()
  local program = dt.preferences.read("klarsicht", "command", "string")
  if program == "" then program = "klarsicht" end
  local job = dt.gui.create_job("klarsicht: denoising bursts", false)
  local code = dt.control.execute(klarsicht.command(program, klarsicht.files(images), klarsicht.folder(images), log))
  job.valid = false
  local file = io.open(log)
  local photographs, failures = klarsicht.read_log(file:lines())
  file:close()
  os.remove(log)
  for _, photograph in ipairs(photographs) do
    dt.database.import(photograph)
  end
  for _, failure in ipairs(failures) do
    dt.print_error(failure)
  end
  local said = "klarsicht: " .. #photographs .. " photographs"
  if code ~= 0 then
    said = said .. "; " .. (failures[#failures] or "the command failed, with exit code " .. tostring(code))
  end
  dt.print(said)
end

dt.preferences.register("klarsicht", "command", "string", "klarsicht: command",
  "program that denoises bursts, with a path if the system does not find it", "klarsicht")
dt.gui.libs.image.register_action("klarsicht", "denoise bursts", function(_, images) klarsicht.denoise(images) end,
  "denoise the bursts among the selected images, and import the photographs")
dt.register_event("klarsicht", "shortcut", function() klarsicht.denoise(dt.gui.action_images) end, "denoise bursts")

return klarsicht
