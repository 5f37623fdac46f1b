//! Commands with their answers, as Redis gives them: [`SCRIPT`] is asked of both.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use redis::{Parser, Value};

use super::Place;

/// A command and its answer in each line, from top to bottom in one database. Words in answers are
/// texts, numbers are integers, `"1"` is a text that looks like one. `~` compares in any order, and
/// `_` in a command is an empty word.
const SCRIPT: &str = r#"
PING                                  => PONG
PING hello                            => hello
ECHO cat                              => cat
ECHO _                                => ""
SELECT 0                              => OK
SELECT 99                             => -ERR DB index is out of range
CLIENT SETNAME shop                   => OK
NOSUCH a b                            => -ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' 
GET                                   => -ERR wrong number of arguments for 'get' command
get a b                               => -ERR wrong number of arguments for 'get' command
DBSIZE                                => 0

GET cat                               => nil
SET cat black                         => OK
GET cat                               => black
SET cat white NX                      => nil
SET cat white XX                      => OK
SET cat grey GET                      => white
SET dog old XX                        => nil
SET dog old NX GET                    => nil
SET dog new NX GET                    => old
GET dog                               => old
SET cat red NX XX                     => -ERR syntax error
SET cat red EX                        => -ERR syntax error
SET cat red EX 10 PX 10               => -ERR syntax error
SET cat red EX 10 KEEPTTL             => -ERR syntax error
SET cat red EX 0                      => -ERR invalid expire time in 'set' command
SET cat red PX -5                     => -ERR invalid expire time in 'set' command
SET cat red EX ten                    => -ERR value is not an integer or out of range
SET cat red EX 9223372036854775807    => -ERR invalid expire time in 'set' command
GET cat                               => grey
TTL cat                               => -1
SET cat red EX 100                    => OK
TTL cat                               => 100
SET cat blue KEEPTTL                  => OK
TTL cat                               => 100
SET cat red                           => OK
TTL cat                               => -1
SETEX cat 200 ginger                  => OK
TTL cat                               => 200
SETEX cat 0 x                         => -ERR invalid expire time in 'setex' command
PSETEX cat 300000 ginger              => OK
TTL cat                               => 300
PSETEX cat 0 x                        => -ERR invalid expire time in 'psetex' command
GETEX cat                             => ginger
TTL cat                               => 300
GETEX cat EX 400                      => ginger
TTL cat                               => 400
GETEX cat PERSIST                     => ginger
TTL cat                               => -1
GETEX cat EX                          => -ERR syntax error
GETEX cat EX 0                        => -ERR invalid expire time in 'getex' command
GETEX nobody EX 5                     => nil
GETDEL cat                            => ginger
GETDEL cat                            => nil
MSET a 1 b 2                          => OK
MSET a 1 b                            => -ERR wrong number of arguments for 'mset' command
MGET a none b                         => ["1" nil "2"]
STRLEN a                              => 1
STRLEN none                           => 0
APPEND a 23                           => 3
APPEND fresh x                        => 1
INCR a                                => 124
INCRBY a -24                          => 100
DECR a                                => 99
DECRBY a 9                            => 90
INCR counter                          => 1
SET big 9223372036854775807           => OK
INCR big                              => -ERR increment or decrement would overflow
DECRBY a -9223372036854775808         => -ERR decrement would overflow
SET word ten                          => OK
INCR word                             => -ERR value is not an integer or out of range
INCRBY a 1.5                          => -ERR value is not an integer or out of range
INCRBY a +1                           => -ERR value is not an integer or out of range

EXPIRE a 100                          => 1
TTL a                                 => 100
INCR a                                => 91
TTL a                                 => 100
PERSIST a                             => 1
PERSIST a                             => 0
TTL none                              => -2
PTTL none                             => -2
PTTL a                                => -1
EXPIRE none 10                        => 0
EXPIRE a ten                          => -ERR value is not an integer or out of range
PEXPIRE a 100000                      => 1
TTL a                                 => 100
EXPIRE a -1                           => 1
EXISTS a                              => 0
EXISTS b b none                       => 2
TYPE b                                => +string
TYPE none                             => none
DEL b none                            => 1
KEYS w*d                              => [word]
SCAN 0 MATCH w*d COUNT 1000           => ["0" [word]]
SCAN x                                => -ERR invalid cursor
MEMORY USAGE none                     => nil
FLUSHDB                               => OK
DBSIZE                                => 0

HSET h a 1 b 2                        => 2
HSET h a 3 c 4                        => 1
HSET h a                              => -ERR wrong number of arguments for 'hset' command
HSET h a 3 c                          => -ERR wrong number of arguments for 'hset' command
HGET h a                              => "3"
HGET h none                           => nil
HGET none a                           => nil
HMGET h a none                        => ["3" nil]
HGETALL h                             ~> [a "3" b "2" c "4"]
HGETALL none                          => []
HLEN h                                => 3
HINCRBY h a 5                         => 8
HINCRBY h fresh -2                    => -2
HSET h word ten                       => 1
HINCRBY h word 1                      => -ERR hash value is not an integer
HDEL h a b none                       => 2
HDEL h c fresh word                   => 3
EXISTS h                              => 0
HLEN h                                => 0

SADD s a b a                          => 2
SADD s c                              => 1
SMEMBERS s                            ~> [a b c]
SMEMBERS none                         => []
SISMEMBER s a                         => 1
SISMEMBER s x                         => 0
SISMEMBER none x                      => 0
SCARD s                               => 3
SREM s a x                            => 1
SREM s b c                            => 2
EXISTS s                              => 0
TYPE s                                => none

RPUSH l a b c                         => 3
LPUSH l y z                           => 5
LRANGE l 0 -1                         => [z y a b c]
LRANGE l 1 2                          => [y a]
LRANGE l -2 100                       => [b c]
LRANGE l 3 1                          => []
LRANGE none 0 -1                      => []
LRANGE l x 1                          => -ERR value is not an integer or out of range
LLEN l                                => 5
LPOP l                                => z
RPOP l                                => c
LPOP l 2                              => [y a]
LPOP l 0                              => []
LPOP l -1                             => -ERR value is out of range, must be positive
LPOP none                             => nil
LPOP none 2                           => nil
RPOP l 5                              => [b]
EXISTS l                              => 0
RPUSH l a b a c a                     => 5
LREM l 1 a                            => 1
LRANGE l 0 -1                         => [b a c a]
LREM l -1 a                           => 1
LRANGE l 0 -1                         => [b a c]
LREM l 0 x                            => 0
LTRIM l 1 -1                          => OK
LRANGE l 0 -1                         => [a c]
LTRIM l 5 9                           => OK
EXISTS l                              => 0
LREM none 0 a                         => 0
RPUSH from a b c                      => 3
LMOVE from to LEFT RIGHT              => a
LMOVE from to right left              => c
LRANGE to 0 -1                        => [c a]
LMOVE from from LEFT RIGHT            => b
LMOVE from to UP DOWN                 => -ERR syntax error
LMOVE none to LEFT LEFT               => nil
LMOVE from to LEFT LEFT               => b
EXISTS from                           => 0
LREM to 0 b                           => 1
BLMOVE to back LEFT RIGHT 0           => c
BRPOP none to 0                       => [to a]
BRPOP none 0.01                       => nil
BLMOVE none to LEFT LEFT 0.01         => nil
BRPOP none -1                         => -ERR timeout is negative
BRPOP none soon                       => -ERR timeout is not a float or out of range
BRPOP none                            => -ERR wrong number of arguments for 'brpop' command

ZADD z 1 a 2 b 3 c                    => 3
ZADD z 5 a                            => 0
ZADD z CH 6 a 2 b                     => 1
ZADD z NX 9 a 9 d                     => 1
ZADD z XX 4 e                         => 0
ZADD z XX CH 4 d                      => 1
ZADD z NX XX 4 e                      => -ERR XX and NX options at the same time are not compatible
ZADD z x e                            => -ERR value is not a valid float
ZADD z 1                              => -ERR wrong number of arguments for 'zadd' command
ZADD z 1 a 2                          => -ERR syntax error
ZSCORE z a                            => "6"
ZSCORE z none                         => nil
ZRANGEBYSCORE z -inf +inf             => [b c d a]
ZRANGEBYSCORE z 2 (4 WITHSCORES       => [b "2" c "3"]
ZRANGEBYSCORE z (2 4                  => [c d]
ZRANGEBYSCORE z -inf inf LIMIT 1 2    => [c d]
ZRANGEBYSCORE z -inf inf LIMIT 1 -1   => [c d a]
ZRANGEBYSCORE z 9 1                   => []
ZRANGEBYSCORE none 1 9                => []
ZRANGEBYSCORE z one 9                 => -ERR min or max is not a float
ZRANGEBYSCORE z 1 9 LIMIT 1           => -ERR syntax error
ZADD z 1.5 half 1.5 also              => 2
ZRANGEBYSCORE z 1 2 WITHSCORES        => [also "1.5" half "1.5" b "2"]
ZCARD z                               => 6
ZREM z a none                         => 1
ZREM z b c d half also                => 5
EXISTS z                              => 0
ZCARD z                               => 0
ZADD z XX 1 a                         => 0
EXISTS z                              => 0

SET text cat                          => OK
HSET text a 1                         => -WRONGTYPE Operation against a key holding the wrong kind of value
SADD text a                           => -WRONGTYPE Operation against a key holding the wrong kind of value
LPUSH text a                          => -WRONGTYPE Operation against a key holding the wrong kind of value
LMOVE back text LEFT LEFT             => -WRONGTYPE Operation against a key holding the wrong kind of value
BRPOP text 1                          => -WRONGTYPE Operation against a key holding the wrong kind of value
ZADD text 1 a                         => -WRONGTYPE Operation against a key holding the wrong kind of value
GET back                              => -WRONGTYPE Operation against a key holding the wrong kind of value
INCR back                             => -WRONGTYPE Operation against a key holding the wrong kind of value
SET back x GET                        => -WRONGTYPE Operation against a key holding the wrong kind of value
MGET back text                        => [nil cat]
LRANGE back 0 -1                      => [c]
SET back now-a-text                   => OK
TYPE back                             => +string

MULTI                                 => OK
MULTI                                 => -ERR MULTI calls can not be nested
SET one 1                             => QUEUED
INCR one                              => QUEUED
HGET one x                            => QUEUED
RPUSH queue job                       => QUEUED
BLMOVE queue busy LEFT LEFT 0         => QUEUED
BRPOP queue 0                         => QUEUED
PUBLISH nobody hello                  => QUEUED
EXEC                                  => [OK 2 -WRONGTYPE Operation against a key holding the wrong kind of value 1 job nil 0]
EXEC                                  => -ERR EXEC without MULTI
MULTI                                 => OK
SET one 5                             => QUEUED
DISCARD                               => OK
DISCARD                               => -ERR DISCARD without MULTI
GET one                               => "2"
MULTI                                 => OK
SET one                               => -ERR wrong number of arguments for 'set' command
SET one 9                             => QUEUED
EXEC                                  => -EXECABORT Transaction discarded because of previous errors.
GET one                               => "2"
MULTI                                 => OK
EXEC                                  => []

UNSUBSCRIBE                           => [unsubscribe nil 0]
SUBSCRIBE news                        => [subscribe news 1]
PSUBSCRIBE n*                         => [psubscribe n* 2]
PSUBSCRIBE n*                         => [psubscribe n* 2]
GET one                               => -ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context
PING                                  => [pong ""]
PING hi                               => [pong hi]
UNSUBSCRIBE                           => [unsubscribe news 1]
UNSUBSCRIBE news                      => [unsubscribe news 1]
PUNSUBSCRIBE n*                       => [punsubscribe n* 0]
GET one                               => "2"
QUIT                                  => OK
"#;

#[test]
fn every_answer_is_what_redis_answers() {
    for place in Place::all() {
        let (mut stream, mut asked, mut others) = (connect(&place), 0, Vec::new());
        let mut answers = Parser::new();
        let mut read = BufReader::new(stream.try_clone().unwrap());
        for line in SCRIPT.lines().filter(|line| !line.is_empty()) {
            let any_order = line.contains("~>");
            let (command, expected) = line.split_once(if any_order { "~>" } else { "=>" }).unwrap();
            stream.write_all(&wire(command.split_whitespace())).unwrap();
            let answer = answers.parse_value(&mut read).unwrap();
            let (answer, expected) =
                (shown(&answer, any_order), expected.trim_start().trim_start_matches('+'));
            if answer != expected {
                others.push(format!("{}: {command}=> {answer} instead of {expected}", place.name));
            }
            asked += 1;
        }
        assert!(others.is_empty(), "{}", others.join("\n"));
        assert!(asked > 200);
        assert_eq!(read.read(&mut [0]).unwrap(), 0, "QUIT ends the connection");
    }
}

fn connect(place: &Place) -> TcpStream {
    let stream = TcpStream::connect(place.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn wire<'a>(words: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(word.trim_matches('_'));
    }
    command.get_packed_command()
}

/// An answer as the script writes it.
fn shown(value: &Value, any_order: bool) -> String {
    match value {
        Value::Nil => "nil".into(),
        Value::Int(number) => number.to_string(),
        Value::Okay => "OK".into(),
        Value::SimpleString(text) => text.clone(),
        Value::BulkString(bytes) => {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let looks_like_a_number = text.parse::<f64>().is_ok();
            if text.is_empty() || looks_like_a_number { format!("{text:?}") } else { text }
        }
        Value::Array(values) if any_order => {
            // Pairs stay together; a member of a set is a pair with nothing.
            let size = if values.len() % 2 == 0 { 2 } else { 1 };
            let mut pairs: Vec<_> = values.chunks(size).map(inside).collect();
            pairs.sort();
            format!("[{}]", pairs.join(" "))
        }
        Value::Array(values) => format!("[{}]", inside(values)),
        Value::ServerError(error) => {
            format!("-{} {}", error.code(), error.details().unwrap_or_default())
        }
        other => format!("{other:?}"),
    }
}

fn inside(values: &[Value]) -> String {
    values.iter().map(|value| shown(value, false)).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_pipeline_is_answered_in_order_and_binary_values_come_back_as_they_were() {
    for place in Place::all() {
        let mut stream = connect(&place);
        let mut pipeline = redis::pipe();
        let value: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
        pipeline.set("picture", &value).get("picture");
        for number in 0..5000 {
            pipeline.cmd("ECHO").arg(number);
        }
        let (packed, mut reading) = (pipeline.get_packed_pipeline(), stream.try_clone().unwrap());
        let writing = std::thread::spawn(move || stream.write_all(&packed).unwrap());
        let (mut parser, mut read) = (Parser::new(), BufReader::new(&mut reading));
        assert_eq!(parser.parse_value(&mut read).unwrap(), Value::Okay);
        assert_eq!(parser.parse_value(&mut read).unwrap(), Value::BulkString(value));
        for number in 0..5000 {
            let echo = Value::BulkString(number.to_string().into());
            assert_eq!(parser.parse_value(&mut read).unwrap(), echo);
        }
        writing.join().unwrap();
    }
}

#[test]
fn what_is_too_large_is_refused_and_ends_the_connection() {
    let place = Place::embedded();
    for (sent, why) in [
        ("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$8388609\r\n", "invalid bulk length"),
        ("*1025\r\n", "invalid multibulk length"),
        ("GET / HTTP/1.1\r\n\r\n", "expected an array of strings"),
    ] {
        let mut stream = connect(&place);
        stream.write_all(sent.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("-ERR Protocol error: {why}\r\n"));
    }
}
