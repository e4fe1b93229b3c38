-- For the joined scripts that `make lint` writes to .build/lua.
std = "lua51"
read_globals = { "redis", "KEYS", "ARGV" } -- no cjson, no struct: flat scalars in, flat arrays out

-- Lua 5.1 has these; the sandbox of Redis and Valkey lacks or cripples them, or a script of ours has no use for them.
not_globals = {
  "collectgarbage", "coroutine", "debug", "dofile", "getfenv", "io", "load", "loadfile", "loadstring", "module",
  "newproxy", "os", "package", "print", "require", "setfenv",
}
