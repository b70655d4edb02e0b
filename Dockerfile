# The image with outrigger alone: docker build -t outrigger .
# Needs no BuildKit feature. deploy/check-image builds it and tries it out.

FROM rust:1.95-bookworm AS build
WORKDIR /src
# Dependencies in a layer of their own, rebuilt only when these two files change. Empty sources stand in for ours.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"/benches\/\1.rs/p' Cargo.toml | xargs -r touch \
    && cargo build --release --locked \
    && rm -r src benches
COPY . .
# docker build --build-arg OUTRIGGER_COMMIT=$(git rev-parse --short=12 HEAD): what `--version` says.
ARG OUTRIGGER_COMMIT=unknown
# Newer than what the layer above left, else cargo keeps the empty program.
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked

FROM debian:bookworm-slim
# Roots for TLS to the outside; the package itself would bring openssl and perl.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/outrigger /usr/local/bin/outrigger
# For `bind: unix:/run/outrigger/…`.
RUN install -d -o 65532 -g 65532 /run/outrigger && install -d /etc/outrigger
USER 65532:65532
# By convention: outbound, inbound, admin. The configuration decides.
EXPOSE 15001 15006 9901
HEALTHCHECK --interval=5s --timeout=2s --start-period=10s --retries=3 \
    CMD ["outrigger", "health", "-c", "/etc/outrigger/outrigger.yaml"]
ENTRYPOINT ["outrigger"]
CMD ["run", "-c", "/etc/outrigger/outrigger.yaml"]
