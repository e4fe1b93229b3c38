-- Arguments as the headers name them. `tonumber` alone is not enough: it takes 'nan', 'inf' and '0x10'. NaN compares
-- false with everything, so that a deadline would never pass, and a loop up to infinity would never end.
local arguments = {}

--- @usual
-- A whole number of at most 15 digits (an instant in ms, a sequence number, a count), else nil.
function arguments.whole(text)
  if text and #text <= 15 and string.find(text, '^%d+$') then return tonumber(text) end
  return nil
end

-- Whether the argument is a whole number or ''.
function arguments.is_whole_or_empty(text) return text == '' or arguments.whole(text) ~= nil end

-- Whether the argument is one word: what can stand between blanks in the journal.
function arguments.is_word(text) return text ~= nil and string.find(text, '^%S+$') ~= nil end
