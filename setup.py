"""Builds the two extensions and the protocol descriptors.

`router._fasthash` is the routing kernel (Cython), `router.engine._engine` the data
plane (C++17 behind a C ABI). ROUTER_BUILD chooses the variant: `release` (default),
`checked` (assertions and bounds checks, scripted versions), `asan`, `tsan` (the same
under a sanitizer). Variants never share objects: each compiles beneath
`build/obj-<variant>`, and `python setup.py build --build-lib build/<variant>` puts a
complete package beside them, to be chosen by PYTHONPATH.

Objects are compiled one by one and only when a source or any header is newer, because a
second `make test` has to be quick.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
VARIANT = os.environ.get("ROUTER_BUILD", "release")
ENGINE = Path("router/engine")

SANITIZE = {
    "asan": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "tsan": ["-fsanitize=thread"],
}
FLAGS = {
    "release": ["-O2", "-DNDEBUG"],
    "checked": ["-O1", "-DROUTER_CHECKED", "-DROUTER_SCRIPTED"],
    "asan": ["-O1", "-DROUTER_CHECKED", "-DROUTER_SCRIPTED", *SANITIZE["asan"]],
    "tsan": ["-O1", "-DROUTER_CHECKED", "-DROUTER_SCRIPTED", *SANITIZE["tsan"]],
}
if VARIANT not in FLAGS:
    sys.exit(f"ROUTER_BUILD={VARIANT}: expected one of {', '.join(FLAGS)}")

COMMON = ["-g1", "-fvisibility=hidden", "-fstack-protector-strong", "-Wall", "-Wextra"]
OURS = ["-Wconversion"]
if os.environ.get("ROUTER_WERROR"):
    OURS.append("-Werror")
DIRECTIVES = {
    "language_level": "3",
    "boundscheck": VARIANT != "release",
    "initializedcheck": VARIANT != "release",
    "cdivision": VARIANT == "release",
    "wraparound": False,
    "embedsignature": False,
    "freethreading_compatible": False,
}
# What a missing header means, and the Debian package that brings it.
HEADERS = {
    "nghttp2/nghttp2.h": "libnghttp2-dev",
    "openssl/evp.h": "libssl-dev",
    "re2/re2.h": "libre2-dev",
    "zlib.h": "zlib1g-dev",
    "Python.h": "python3-dev",
}


def engine_sources() -> list[str]:
    floors = ["base", "wire", "run", "watch", "serve"]
    return [str(p) for floor in floors for p in sorted((ENGINE / floor).glob("*.cc"))]


EXTENSIONS = [
    Extension("router._fasthash", ["router/_fasthash.pyx"], include_dirs=["router"]),
    Extension(
        "router.engine._engine",
        ["router/engine/_engine.pyx", *engine_sources()],
        language="c++",
        include_dirs=["router", str(ENGINE)],
        libraries=["nghttp2", "re2", "ssl", "crypto", "z", "dl", "pthread"],
    ),
]


class BuildExt(build_ext):
    """Cythonize, then compile each object older than its source or any header."""

    def build_extension(self, ext: Extension) -> None:
        self._require_tools()
        objects_dir = ROOT / "build" / f"obj-{VARIANT}"
        headers = [
            *ROOT.glob("router/**/*.h"),
            *ROOT.glob("router/*.pxd"),
            ROOT / "setup.py",
        ]
        newest_header = max(p.stat().st_mtime for p in headers)
        jobs = []
        for source in ext.sources:
            path = ROOT / source
            generated = path.suffix == ".pyx"
            if generated:
                path = self._cythonize(ext, path, objects_dir, newest_header)
            name = str(path.relative_to(ROOT)).replace("/", "_") + ".o"
            jobs.append((path, objects_dir / name, generated))
        stale = [
            job
            for job in jobs
            if not job[1].exists()
            or job[1].stat().st_mtime < max(job[0].stat().st_mtime, newest_header)
        ]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(pool.map(lambda job: self._compile(ext, *job), stale))
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        objects = [str(job[1]) for job in jobs]
        if stale or not target.exists():
            self._link(ext, objects, target)

    def _require_tools(self) -> None:
        if shutil.which(self._compiler()) is None:
            sys.exit(f"no C++ compiler ({self._compiler()}): apt-get install g++")
        for header, package in HEADERS.items():
            probe = subprocess.run(
                [self._compiler(), "-x", "c++", "-E", "-", *self._python_include()],
                input=f"#include <{header}>\n",
                capture_output=True,
                text=True,
                check=False,
            )
            if probe.returncode:
                sys.exit(f"<{header}> is missing: apt-get install {package}")

    def _cythonize(
        self, ext: Extension, pyx: Path, out_dir: Path, newest_header: float
    ) -> Path:
        from Cython.Build import cythonize  # a build requirement, not a runtime one

        cplus = ext.language == "c++"
        made = out_dir / (pyx.stem + (".cpp" if cplus else ".c"))
        if made.exists() and made.stat().st_mtime >= max(
            pyx.stat().st_mtime, newest_header
        ):
            return made
        out_dir.mkdir(parents=True, exist_ok=True)
        relative = str(pyx.relative_to(ROOT))
        one = Extension(ext.name, [relative], language=ext.language)
        (result,) = cythonize(
            [one],
            build_dir=str(out_dir / "cython"),
            compiler_directives=DIRECTIVES,
            include_path=["."],
            force=True,
            quiet=True,
        )
        shutil.copyfile(result.sources[0], made)
        return made

    def _compile(
        self, ext: Extension, source: Path, target: Path, generated: bool
    ) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        plain_c = source.suffix == ".c"
        command = [self._compiler("CC", "gcc") if plain_c else self._compiler(), "-c"]
        command += ["-std=c11"] if plain_c else ["-std=c++17"]
        command += ["-fPIC", "-D_GNU_SOURCE", *COMMON, *FLAGS[VARIANT]]
        command += ["-w"] if generated else OURS
        command += [f"-I{d}" for d in ext.include_dirs] + self._python_include()
        partial = target.with_suffix(".tmp")
        done = subprocess.run([*command, str(source), "-o", str(partial)], check=False)
        if done.returncode:
            sys.exit(f"{source.relative_to(ROOT)} does not compile")
        partial.replace(target)

    def _link(self, ext: Extension, objects: list[str], target: Path) -> None:
        command = [self._compiler(), "-shared", *objects, "-o", str(target)]
        command += [*SANITIZE.get(VARIANT, []), "-Wl,-z,relro,-z,now"]
        command += [f"-l{name}" for name in ext.libraries]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"{ext.name} does not link")

    @staticmethod
    def _compiler(variable: str = "CXX", default: str = "g++") -> str:
        return os.environ.get(variable, default)

    def _python_include(self) -> list[str]:
        import sysconfig

        return [f"-I{sysconfig.get_path('include')}"]


class BuildPy(build_py):
    """Also compile proto/ into one descriptor set, `router/wire.desc`."""

    def run(self) -> None:
        super().run()
        from grpc_tools import protoc  # a build requirement, not a runtime one

        out = Path(self.build_lib) / "router" / "wire.desc"
        protos = [
            str(p.relative_to(ROOT)) for p in sorted(ROOT.glob("proto/**/*.proto"))
        ]
        newest = max(Path(p).stat().st_mtime for p in protos)
        if out.exists() and out.stat().st_mtime >= newest:
            return
        if protoc.main(
            [
                "protoc",
                "-Iproto",
                f"--descriptor_set_out={out}",
                "--include_imports",
                *protos,
            ]
        ):
            sys.exit("proto/ does not compile")


setup(ext_modules=EXTENSIONS, cmdclass={"build_ext": BuildExt, "build_py": BuildPy})
