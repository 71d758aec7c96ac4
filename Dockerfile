# tollpass in a container, without the demo:
#
#   docker build -t tollpass .
#   docker run -p 127.0.0.1:8402:8402 -v tollpass:/var/lib/tollpass -v "$PWD/wallet:/etc/tollpass:ro" \
#       -e TOLLPASS_CONFIG=/etc/tollpass/proxy.toml -e TOLLPASS_ALLOW_REMOTE=true tollpass
#
# It runs as a dedicated user and reports its health. Without TOLLPASS_CONFIG it is a plain proxy that never pays. A
# proxy with a wallet needs TOLLPASS_ALLOW_REMOTE=true and a [[client]] in proxy.toml, because it listens on all addresses
# of the container: programs use http://NAME:TOKEN@127.0.0.1:8402 as their proxy, with tls_cert an https:// URL. Keys and
# tokens in ./wallet must belong to uid 8402, with mode 600. Keep the state, /var/lib/tollpass, on a volume.

FROM rust:1-slim-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --no-default-features --bin tollpass

FROM debian:bookworm-slim
# ca-certificates: the root certificates that verify origins and nodes over https.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 8402 --home-dir /var/lib/tollpass tollpass \
    && install -d -m 700 -o tollpass -g tollpass /var/lib/tollpass
COPY --from=build /build/target/release/tollpass /usr/local/bin/tollpass
USER tollpass
ENV TOLLPASS_LISTEN=0.0.0.0:8402 \
    TOLLPASS_STATE_DIR=/var/lib/tollpass
VOLUME /var/lib/tollpass
EXPOSE 8402
# The setup page responds while the proxy serves; with tls_cert, a request without TLS gets a 400.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8402 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && read -r -t 4 head <&3 && [[ $head == *' 200 '* || $head == *' 400 '* ]]"]
ENTRYPOINT ["tollpass"]
CMD ["serve"]
