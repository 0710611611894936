local units = require("units")

assert(tostring(units.metres(3) + units.metres(4)) == "7 m")
assert(not pcall(function() return units.metres(3) + units.seconds(4) end))
