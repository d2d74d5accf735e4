# The same on NVIDIA's CUDA libraries: what a build with kernels for GPUs needs at run time.
#   docker build -f examples/docker/cuda.Dockerfile -t amlua:cuda .      docker run --gpus all amlua:cuda
FROM nvidia/cuda:12.6.3-devel-ubuntu24.04 AS build
COPY . /src
WORKDIR /src
SHELL ["/bin/bash", "-euc"]
RUN . tests/packages.sh; \
    install_packages "${BUILD_PACKAGES[@]/libjpeg62-turbo-dev/libjpeg-turbo8-dev}" libopenmpi-dev file
RUN cmake -B /build -DCMAKE_BUILD_TYPE=Release; cmake --build /build -j "$(nproc)"; cd /build; cpack -G DEB

FROM nvidia/cuda:12.6.3-runtime-ubuntu24.04
COPY --from=build /build/*.deb /tmp/
RUN apt-get update && apt-get install -y --no-install-recommends \
        /tmp/*.deb openmpi-bin openssh-client openssh-server curl ca-certificates && \
    rm -rf /tmp/*.deb /var/lib/apt/lists/* && mkdir -p /run/sshd
CMD ["amlua", "--info"]
