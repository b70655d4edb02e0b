# The image with outrigger alone: docker build -t outrigger .
# Needs no BuildKit feature. deploy/check-image builds it and tries it out.

FROM rust:1.95-bookworm AS build
WORKDIR /src
# One static program, so that the image holds nothing else. With a target named, build scripts and macros stay dynamic.
ENV RUSTFLAGS="-C target-feature=+crt-static"
# Dependencies in a layer of their own, rebuilt only when these two files change. Empty sources stand in for ours.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"/benches\/\1.rs/p' Cargo.toml | xargs -r touch \
    && cargo build --release --locked --features full --target "$(rustc -vV | sed -n 's/^host: //p')" \
    && rm -r src benches
COPY . .
# docker build --build-arg OUTRIGGER_COMMIT=$(git rev-parse --short=12 HEAD): what `--version` says.
ARG OUTRIGGER_COMMIT=unknown
# Newer than what the layer above left, else cargo keeps the empty program.
RUN touch src/main.rs src/lib.rs \
    && target="$(rustc -vV | sed -n 's/^host: //p')" \
    && cargo build --release --locked --features full --target "$target" \
    && install -D "target/$target/release/outrigger" /image/usr/local/bin/outrigger \
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    && install -d /image/etc/outrigger

FROM scratch
# The program, and roots for TLS to the outside.
COPY --from=build /image/ /
# For `bind: unix:/run/outrigger/…`.
COPY --from=build --chown=65532:65532 /image/etc/outrigger/ /run/outrigger/
USER 65532:65532
# By convention: outbound, inbound, admin. The configuration decides.
EXPOSE 15001 15006 9901
HEALTHCHECK --interval=5s --timeout=2s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/outrigger", "health", "-c", "/etc/outrigger/outrigger.yaml"]
ENTRYPOINT ["/usr/local/bin/outrigger"]
CMD ["run", "-c", "/etc/outrigger/outrigger.yaml"]
