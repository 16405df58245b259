"""The darktable script: run by Lua beside a darktable that the test plays, and by darktable itself without its windows.
The command is a program of the test's own, so what it is called with is what the shell made of it."""

import ctypes
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.burst.conftest import write_dng

SCRIPT = Path(__file__).parents[2] / "extras" / "darktable" / "klarsicht.lua"
STAND_IN = """
import json, pathlib, shutil, sys
words, here = sys.argv[1:], pathlib.Path(__file__).parent
(here / "words.json").write_text(json.dumps(words))
made = pathlib.Path(words[-1].replace("{}", "a-b"))
made.parent.mkdir(exist_ok=True)
shutil.copy(words[2], made)
print("left out: broken.dng is empty")
print(f"{made}: 2 of 2 frames; dropped: x.dng: why")
print(f"{made.parent / 'c-d.dng'}: failed: nothing")
sys.exit(3)
"""
PLAYED = """
local said = {}
local dt = {
  print = function(text) said[#said + 1] = "print " .. text end,
  print_error = function(text) said[#said + 1] = "error " .. text end,
  preferences = { register = function() end, read = function() return PROGRAM end },
  gui = {
    create_job = function() return { valid = true } end,
    action_images = {},
    libs = { image = { register_action = function(...) action = select(3, ...) end } },
  },
  register_event = function(_, kind, run) shortcut = kind == "shortcut" and run end,
  control = { execute = function(command) local _, _, code = os.execute(command) return code end },
  database = { import = function(file) said[#said + 1] = "import " .. file end },
}
"""


def run_lua(code):
    """The text that a chunk of Lua 5.4 returns, by the library that darktable is linked with."""
    try:
        lua = ctypes.CDLL("liblua5.4.so.0")
    except OSError:
        pytest.skip("no library of Lua 5.4")
    state, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    lua.luaL_newstate.restype, lua.lua_tolstring.restype = state, text
    lua.luaL_openlibs.argtypes, lua.lua_close.argtypes = [state], [state]
    lua.luaL_loadstring.argtypes = [state, text]
    lua.lua_pcallk.argtypes = [state, number, number, number, ctypes.c_ssize_t, state]
    lua.lua_tolstring.argtypes = [state, number, state]
    here = lua.luaL_newstate()
    lua.luaL_openlibs(here)
    failed = lua.luaL_loadstring(here, code.encode()) or lua.lua_pcallk(here, 0, 1, 0, 0, None)
    told = lua.lua_tolstring(here, -1, None).decode()
    lua.lua_close(here)
    assert not failed, told
    return told


@pytest.fixture
def program(tmp_path):
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    return f"{sys.executable} {tmp_path / 'stand_in.py'}"


def images(folder, *names):
    return ", ".join(f'{{ path = "{folder}", filename = "{name}" }}' for name in names)


def test_the_selection_is_handed_over_and_what_was_made_is_imported(program, tmp_path):
    """Names with a blank and a quote arrive whole, a duplicate of an image counts once, and what failed is shown."""
    names = ("it's a.dng", "$b.dng", "it's a.dng")
    for name in names:
        (tmp_path / name).touch()
    told = run_lua(f"""
        PROGRAM = "{program}"
        {PLAYED}
        package.preload["darktable"] = function() return dt end
        dofile("{SCRIPT}")
        action("press", {{ {images(tmp_path, *names)} }})
        shortcut()
        return table.concat(said, "\\n")
    """)
    out = tmp_path / "klarsicht"
    expected = ["burst", "denoise", *(str(tmp_path / name) for name in names[:2]), "-o", str(out / "{}.dng")]
    assert json.loads((tmp_path / "words.json").read_text()) == expected
    assert told.splitlines() == [
        f"import {out / 'a-b.dng'}",
        "error left out: broken.dng is empty",
        f"error {out / 'c-d.dng'}: failed: nothing",
        f"print klarsicht: 1 photographs; {out / 'c-d.dng'}: failed: nothing",
        "print klarsicht: no image is selected",
    ]


@pytest.mark.nightly
def test_darktable_runs_the_script_and_imports_the_photograph(program, tmp_path):
    """Its windows are played, as there is no display; command, import and image are darktable's own."""
    if shutil.which("darktable-cli") is None:
        pytest.skip("no darktable-cli, which .ci/nightly installs")
    shot = write_dng(tmp_path / "a.dng", np.full((96, 128), 900))
    code = f"""
        local dt = require "darktable"
        package.preload["darktable"] = function() return setmetatable({{
          gui = {{ create_job = function() return {{ valid = true }} end,
                   libs = {{ image = {{ register_action = function() end }} }} }},
          register_event = function() end,
          print = function() end, print_error = function() end,
          preferences = {{ register = function() end, read = function() return "{program}" end }},
        }}, {{ __index = dt }}) end
        package.loaded["darktable"] = nil
        local klarsicht = dofile("{SCRIPT}")
        klarsicht.denoise({{ {images(tmp_path, "a.dng")} }})
        local file = io.open("{tmp_path}/imported", "w")
        for _, image in ipairs(dt.database) do file:write(image.path .. "/" .. image.filename .. "\\n") end
        file:close()
    """
    command = ["darktable-cli", shot, tmp_path / "a.jpg", "--core", "--configdir", tmp_path / "settings"]
    subprocess.run([*command, "--library", ":memory:", "--luacmd", code], capture_output=True, check=True)
    assert str(tmp_path / "klarsicht" / "a-b.dng") in (tmp_path / "imported").read_text().splitlines()
