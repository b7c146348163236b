//! The scripts that Redis runs: each looks at the fence first, and is atomic.

use redis::Script;

/// Raises the fence of a group. Keys: cluster, fence; arguments: cluster, term, connection.
pub(super) fn raise() -> Script {
    Script::new(
        r"
        local cluster = redis.call('GET', KEYS[1])
        if cluster and cluster ~= ARGV[1] then
            return redis.error_reply('TRINECLUSTER ' .. cluster)
        end
        local fence = redis.call('GET', KEYS[2])
        if fence then
            local term, connection = string.match(fence, '^(%d+) (%d+)$')
            term, connection = tonumber(term), tonumber(connection)
            local mine, number = tonumber(ARGV[2]), tonumber(ARGV[3])
            if not term or term > mine or (term == mine and connection > number) then
                return redis.error_reply('TRINEFENCED ' .. fence)
            end
        end
        redis.call('SET', KEYS[1], ARGV[1])
        redis.call('SET', KEYS[2], ARGV[2] .. ' ' .. ARGV[3])
        return redis.status_reply('OK')
        ",
    )
}

/// Reads a value and its line. Keys: fence, value, line; argument: what the fence has to be.
pub(super) fn read() -> Script {
    Script::new(
        r"
        local fence = redis.call('GET', KEYS[1])
        if fence ~= ARGV[1] then
            return redis.error_reply('TRINEFENCED ' .. (fence or 'gone'))
        end
        return { redis.call('GET', KEYS[2]), redis.call('GET', KEYS[3]) }
        ",
    )
}

/// Writes a value and its line. Keys: fence, value, line; arguments: what the fence has to be, value, line.
pub(super) fn write() -> Script {
    Script::new(
        r"
        local fence = redis.call('GET', KEYS[1])
        if fence ~= ARGV[1] then
            return redis.error_reply('TRINEFENCED ' .. (fence or 'gone'))
        end
        redis.call('SET', KEYS[2], ARGV[2])
        redis.call('SET', KEYS[3], ARGV[3])
        return redis.status_reply('OK')
        ",
    )
}

/// Deletes a value and its line. Keys: fence, value, line; argument: what the fence has to be.
pub(super) fn delete() -> Script {
    Script::new(
        r"
        local fence = redis.call('GET', KEYS[1])
        if fence ~= ARGV[1] then
            return redis.error_reply('TRINEFENCED ' .. (fence or 'gone'))
        end
        redis.call('DEL', KEYS[2], KEYS[3])
        return redis.status_reply('OK')
        ",
    )
}
