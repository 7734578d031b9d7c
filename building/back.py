"""The back end: LLVM optimises bitcode for each level of instruction sets, and a linker makes shared libraries."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .front import bitcode_of, index_of

# Per level: LLVM's name of the system and of the processor.
TARGETS = {
    "x86-64-v2": ("x86_64-unknown-linux-gnu", "x86-64-v2"),
    "x86-64-v3": ("x86_64-unknown-linux-gnu", "x86-64-v3"),
    "x86-64-v4": ("x86_64-unknown-linux-gnu", "x86-64-v4"),
    "aarch64": ("aarch64-unknown-linux-gnu", "generic"),
}
GLIBC = "2.17"  # that of manylinux_2_17


def library_of(folder: Path, level: str) -> Path:
    """The file of a level's library, named as polyak looks it up."""
    return folder / f"kernels-{level}.so"


def object_of(folder: Path, group: int, level: str) -> Path:
    """The object file of a group for a level."""
    return folder / f"group-{group}-{level}.o"


def compile_group(folder: Path, group: int, level: str) -> None:
    """Write a group's machine code for a level, unless an earlier build has."""
    from llvmlite import binding

    path, begun = object_of(folder, group, level), time.process_time()
    if path.exists():
        return
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    triple, processor = TARGETS[level]
    machine = binding.Target.from_triple(triple).create_target_machine(
        cpu=processor, opt=3, reloc="pic", codemodel="small"
    )
    module = binding.parse_bitcode(bitcode_of(folder, group).read_bytes())
    module.triple, module.data_layout = triple, str(machine.target_data)
    _optimise(module, machine)
    draft = path.with_suffix(".draft")
    draft.write_bytes(machine.emit_object(module))
    draft.replace(path)
    print(f"{level}, group {group + 1}: {time.process_time() - begun:.1f} s of CPU", flush=True)


def _optimise(module: Any, machine: Any) -> None:
    """Numba's own order of passes: functions, loops prepared for vector code, everything."""
    from llvmlite import binding

    from polyak.native._build import drop_unused

    for function in module.functions:
        with _passes(binding, machine, 3) as passes:
            passes.getFunctionPassManager().run(function, passes)
    with _passes(binding, machine, 0) as passes:
        manager = passes.getModulePassManager()
        manager.add_loop_rotate_pass()
        manager.add_instruction_combine_pass()
        manager.add_jump_threading_pass()
        manager.run(module, passes)
    with _passes(binding, machine, 3) as passes:
        passes.getModulePassManager().run(module, passes)
    drop_unused(module, machine)


def _passes(binding: Any, machine: Any, level: int) -> Any:
    tuning = binding.create_pipeline_tuning_options(speed_level=level)
    tuning.loop_vectorization, tuning.slp_vectorization = level > 0, False
    return binding.create_pass_builder(machine, tuning)


def link(folder: Path, level: str, groups: int) -> None:
    """Link a level's object files and their index into one library."""
    library, source = library_of(folder, level), folder / "index.c"
    lines = [f'"{line}\\n"\n' for group in range(groups) for line in index_of(folder, group).read_text().splitlines()]
    source.write_text(f"const char polyak_index[] =\n{''.join(lines)};\n", encoding="utf-8")
    objects = [str(object_of(folder, group, level)) for group in range(groups)]
    draft = library.with_suffix(".draft")
    subprocess.run([*_linker(level), "-o", str(draft), str(source), *objects, "-lc"], check=True)
    draft.replace(library)


def _linker(level: str) -> list[str]:
    """The system's compiler for its own machine, else Zig's."""
    options = ["-shared", "-nostdlib", "-s", "-Wl,-z,noexecstack", "-Wl,-z,relro"]
    machine = TARGETS[level][0].partition("-")[0]
    compiler = os.environ.get("CC", "cc")
    if machine == platform.machine() and shutil.which(compiler):
        return [compiler, *options]
    zig = [sys.executable, "-m", "ziglang"]
    if subprocess.run([*zig, "version"], capture_output=True, check=False).returncode:
        sys.exit(f"no linker for {machine}: install a C compiler for it and name it in CC, or pip install ziglang.")
    return [*zig, "cc", "-target", f"{machine}-linux-gnu.{GLIBC}", *options]
