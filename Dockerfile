# A container image with nothing but the program. Not built here: no container engine was at hand when it was written.
# Tests check what it copies, run its build command, and run the program in an empty root as the image would.
#
#   docker build --build-arg VERSION=$(git describe --tags --always) -t tandem .
#   docker run --network host -v tandem:/var/lib/tandem -v /etc/tandem:/etc/tandem:ro tandem \
#       serve --config /etc/tandem/tandem.yaml
#
# SIP and SDP carry addresses: use the host's network, or set "advertised" of every peer group. To stop, allow at least
# shutdown.lameDuck + shutdown.drain + shutdown.cut (docker stop --time 330): calls in progress may then end.
FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/tandem \
	./cmd/tandem
RUN install -d -m 0700 -o 65532 -g 65532 /out/data && install -d -m 1777 /out/tmp

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=65532:65532 /out/data /var/lib/tandem
COPY --from=build /out/tmp /tmp
COPY --from=build /out/tandem /usr/bin/tandem
USER 65532:65532
ENV TANDEM_DATA=/var/lib/tandem
VOLUME /var/lib/tandem
EXPOSE 5060/udp 5060/tcp 5061/tcp 8080/tcp 8081/tcp 9464/tcp
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/tandem"]
CMD ["serve"]
