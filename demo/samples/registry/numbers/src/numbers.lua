local numbers = {}

-- Blanks separate thousands; a comma is a decimal point.
function numbers.parse(text)
  local plain = text:gsub("%s", ""):gsub(",", ".")
  return tonumber(plain) or error("no number: " .. text)
end

function numbers.show(value)
  return string.format("%.15g", value)
end

return numbers
