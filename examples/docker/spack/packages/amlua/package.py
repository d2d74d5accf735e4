# Spack: amlua from a source tree, against the site's own MPI.
#   spack repo add examples/docker/spack && spack dev-build --source-path . amlua@main
from spack.package import *


class Amlua(CMakePackage):
    """Fine-tune Hugging Face models from one native binary."""

    license("Apache-2.0")
    version("main")

    variant("mpi", default=True, description="ranks that meet through MPI")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("cmake@3.22:", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("luajit")
    depends_on("lua-yaml", type="run")
    depends_on("lua-cjson", type="run")
    depends_on("onednn@2.6:")
    depends_on("pcre2+jit")
    for library in ("utf8proc", "zlib", "zstd", "snappy", "libjpeg-turbo", "libspng", "libwebp", "giflib", "libedit"):
        depends_on(library)
    depends_on("curl", type="run")
    depends_on("mpi", when="+mpi")
