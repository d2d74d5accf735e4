# amlua with Open MPI, and an SSH server for Kubeflow's MPI operator.
#   docker build -f examples/docker/cpu.Dockerfile -t amlua:cpu .
FROM debian:bookworm-slim AS build
COPY . /src
WORKDIR /src
SHELL ["/bin/bash", "-euc"]
RUN . tests/packages.sh; install_packages "${BUILD_PACKAGES[@]}" libopenmpi-dev file
RUN cmake -B /build -DCMAKE_BUILD_TYPE=Release; cmake --build /build -j "$(nproc)"; cd /build; cpack -G DEB

FROM debian:bookworm-slim
COPY --from=build /build/*.deb /tmp/
RUN apt-get update && apt-get install -y --no-install-recommends \
        /tmp/*.deb openmpi-bin openssh-client openssh-server libcurl4 ca-certificates && \
    rm -rf /tmp/*.deb /var/lib/apt/lists/* && mkdir -p /run/sshd
CMD ["amlua", "--info"]
