# Two stages: the toolchain builds, and only the two binaries go on.
FROM rust:1-bookworm AS build
WORKDIR /src

# The dependencies first, in a layer of their own: from the manifests, and crates that are empty. It is built again when a
# manifest changes or the lock file does, and not when a source does.
COPY Cargo.toml Cargo.lock ./
COPY protocol/Cargo.toml protocol/
COPY loadgen/Cargo.toml loadgen/
RUN mkdir -p src/bin protocol/src protocol/tests/client loadgen/src \
 && touch src/lib.rs protocol/src/lib.rs protocol/tests/client/main.rs \
 && echo 'fn main() {}' | tee src/main.rs src/bin/trine-sim.rs > loadgen/src/main.rs \
 && cargo build --release --locked -p trine -p trine-loadgen --bin trine --bin trine-loadgen \
 # Cargo goes by the time of a file, and the sources may be older than the empty crates are.
 && cargo clean --release -p trine -p trine-protocol -p trine-loadgen

COPY protocol protocol
COPY loadgen loadgen
COPY src src
RUN cargo build --release --locked -p trine -p trine-loadgen --bin trine --bin trine-loadgen

FROM debian:bookworm-slim
# The number is fixed: what is in a volume belongs to it, whatever image comes next.
RUN useradd --system --user-group --uid 10001 --create-home --home-dir /var/lib/trine trine
COPY --from=build /src/target/release/trine /src/target/release/trine-loadgen /usr/local/bin/
USER trine
WORKDIR /var/lib/trine
VOLUME /var/lib/trine
ENTRYPOINT ["trine"]
CMD ["up"]
