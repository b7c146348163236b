# Two stages: the toolchain builds, and only the binary goes on.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin trine

FROM debian:bookworm-slim
RUN useradd --system --user-group --create-home --home-dir /var/lib/trine trine
COPY --from=build /src/target/release/trine /usr/local/bin/trine
USER trine
WORKDIR /var/lib/trine
VOLUME /var/lib/trine
ENTRYPOINT ["trine"]
CMD ["up"]
