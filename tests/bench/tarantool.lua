-- One of two Tarantool masters on loopback, for the figures beside Tidelog's: tests/bench/run replication starts both.
--
--   tarantool tarantool.lua NAME FOLDER OWN_PORT OTHER_PORT WAL_MODE BATCHED SINGLES CAUGHT_UP
--
-- `a` writes once `b` follows, prints one line of JSON for each measurement, and ends; `b` serves until it is killed. A record is (series,
-- time, value), the primary key its first two. The partition is on b's side: it forgets where a is, and is told again.

local json, fiber, clock, net = require('json'), require('fiber'), require('clock'), require('net.box')
local name, folder, own, other, wal_mode = arg[1], arg[2], arg[3], arg[4], arg[5]
local batched, singles, caught_up = tonumber(arg[6]), tonumber(arg[7]), tonumber(arg[8])
local PER_TRANSACTION, FIBERS = 1000, 200

local function uri(port) return 'guest@127.0.0.1:' .. port end

box.cfg{
    listen = '127.0.0.1:' .. own, work_dir = folder, log_level = 3, log = folder .. '/log', wal_mode = wal_mode,
    memtx_memory = 1024 * 1024 * 1024, replication = {uri(own), uri(other)}, replication_connect_quorum = name == 'b' and 2 or 1,
    checkpoint_interval = 0, read_only = name == 'b', replication_timeout = 1,
}
if name == 'a' then
    box.once('schema', function()
        local points = box.schema.space.create('points')
        points:create_index('primary', {parts = {1, 'unsigned', 2, 'unsigned'}})
        box.schema.user.grant('guest', 'super')
    end)
else
    function partition(is_cut)
        box.cfg{replication = is_cut and {} or {uri(own), uri(other)}}
    end
    function begin_writing() box.cfg{read_only = false} end
    fiber.sleep(1e9)
end

local b
while not (b and b:is_connected()) do
    b = net.connect('127.0.0.1:' .. other, {user = 'guest', reconnect_after = 0.1})
    fiber.sleep(0.1)
end
local function wait_for(what) while not what() do fiber.sleep(0.001) end end
local function there() return b:eval('return box.space.points and box.space.points:len() or -1') end
wait_for(function() return select(2, pcall(there)) == 0 end)
b:call('begin_writing')

local points, time, written = box.space.points, 0, 0
local function insert()
    time = time + 1
    points:insert{time % 100, time, 20 + time % 1000 / 100}
end
local function transactions(count)
    for _ = 1, count / PER_TRANSACTION do
        box.begin()
        for _ = 1, PER_TRANSACTION do insert() end
        box.commit()
    end
    written = written + count
end
local function cpu_s()
    local function of(pid)
        local words = {}
        for word in io.open('/proc/' .. pid .. '/stat'):read('*a'):gsub('^.*%)', ''):gmatch('%S+') do words[#words + 1] = word end
        return (tonumber(words[12]) + tonumber(words[13])) / 100
    end
    return of(require('tarantool').pid()) + of(b:eval("return require('tarantool').pid()"))
end
local function measure(what, count, work)
    local begun, cpu = clock.monotonic(), cpu_s()
    work()
    wait_for(function() return there() == written end)
    local seconds = clock.monotonic() - begun
    print(json.encode{what = what, records = count, seconds = seconds, cpu_s = cpu_s() - cpu})
end

measure('batched', batched, function() transactions(batched) end)
measure('singles', singles, function()
    local done = fiber.channel(FIBERS)
    for _ = 1, FIBERS do
        fiber.create(function()
            for _ = 1, singles / FIBERS do insert() end
            done:put(true)
        end)
    end
    for _ = 1, FIBERS do done:get() end
    written = written + singles
end)
b:call('partition', {true})
transactions(caught_up)
measure('caught up', caught_up, function() b:call('partition', {false}) end)
io.flush()
os.exit(0)
