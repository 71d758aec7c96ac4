# tollpass in a container, without the demo:
#
#   docker build -t tollpass .
#   docker run -p 127.0.0.1:8402:8402 -v tollpass:/var/lib/tollpass -v "$PWD/wallet:/etc/tollpass:ro" \
#       -e TOLLPASS_CONFIG=/etc/tollpass/proxy.toml -e TOLLPASS_ALLOW_REMOTE=true tollpass
#
# Several platforms: docker buildx build --platform linux/amd64,linux/arm64 .
#
# It runs as a dedicated user and reports its health. Without TOLLPASS_CONFIG it is a plain proxy that never pays. A
# proxy with a wallet needs TOLLPASS_ALLOW_REMOTE=true and a [[client]] in proxy.toml, because it listens on all addresses
# of the container: programs use http://NAME:TOKEN@127.0.0.1:8402 as their proxy, with tls_cert an https:// URL. Keys and
# tokens in ./wallet must belong to uid 8402, with mode 600, or to root and group 8402, with mode 440. Keep the state,
# /var/lib/tollpass, on a volume. `tollpass example compose` and `tollpass example kubernetes` print whole set-ups.

# Exact versions of both bases; @sha256:... after one pins its content, too.
ARG RUST=rust:1.92.0-slim-bookworm
ARG DEBIAN=debian:12.12-slim

FROM ${RUST} AS build
WORKDIR /build
# The dependencies first, with empty sources: this layer is built again only if they change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/suite tests/examples tests/bench/paid tests/bench/proxies \
    && touch src/lib.rs tests/suite/main.rs \
    && echo 'fn main() {}' | tee src/main.rs tests/examples/paying_client.rs tests/bench/paid/main.rs tests/bench/proxies/main.rs \
    && cargo build --release --locked --no-default-features --features otlp --lib --bin tollpass
COPY . .
# Cargo goes by the times of files, which are older than that build.
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked --no-default-features --features otlp --bin tollpass

FROM ${DEBIAN}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="tollpass" \
    org.opencontainers.image.description="A local HTTP forward proxy that pays for 402 Payment Required responses, within rules that you write." \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.licenses="MIT"
# ca-certificates: the root certificates that verify origins and nodes over https.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 8402 tollpass \
    && useradd --system --uid 8402 --gid 8402 --home-dir /var/lib/tollpass tollpass \
    && install -d -m 700 -o tollpass -g tollpass /var/lib/tollpass
COPY --from=build /build/target/release/tollpass /usr/local/bin/tollpass
# By number, so that Kubernetes can see that it is not root.
USER 8402:8402
ENV TOLLPASS_LISTEN=0.0.0.0:8402 \
    TOLLPASS_STATE_DIR=/var/lib/tollpass
VOLUME /var/lib/tollpass
EXPOSE 8402
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["tollpass", "healthcheck"]
ENTRYPOINT ["tollpass"]
CMD ["serve"]
