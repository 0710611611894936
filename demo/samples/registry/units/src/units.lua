local numbers = require("numbers")

local unit = {}
unit.__index = unit

unit.__add = function(a, b)
  assert(a.symbol == b.symbol, "cannot add " .. a.symbol .. " and " .. b.symbol)
  return setmetatable({ value = a.value + b.value, symbol = a.symbol }, unit)
end

unit.__tostring = function(self)
  return numbers.show(self.value) .. " " .. self.symbol
end

local function of(symbol)
  return function(value)
    return setmetatable({ value = value, symbol = symbol }, unit)
  end
end

return { metres = of("m"), grams = of("g"), seconds = of("s") }
