# `just` lists what there is.
_list:
    @just --list

# everything that CI checks
ci *args:
    .ci/run {{args}}

# the tests
test *args:
    cargo test {{args}}

# the tests through sockets only
e2e *args:
    cargo test --test e2e {{args}}

# so many inputs for each test that tries damaged ones: just fuzz 1000000
fuzz count *args:
    PROPTEST_CASES={{count}} cargo test --lib fuzz:: {{args}}

# break everything, again and again: just chaos --minutes 10 --seed 7
chaos *args:
    cargo test --test chaos -- {{args}}

# among curl, wrk, nc and Python's websockets
outside *args:
    cargo build
    tests/outside/run target/debug/pintle {{args}}

# a balancer: just run --to :9001,:9002
run *args:
    cargo run -- serve {{args}}

# a balancer with three backends, to try everything
demo:
    cargo run --release -- demo

fmt:
    cargo fmt --all

lint:
    cargo clippy --all-targets -- -D warnings

# the documentation of the library
doc:
    cargo doc --no-deps --document-private-items --open
