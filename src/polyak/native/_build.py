"""Compile kernels with Numba into code that needs no Numba.

An entry point takes the addresses of array objects and reads where their data lie and how many entries they have. That
costs a fraction of a microsecond; asking NumPy for an array's address costs several.
"""

from __future__ import annotations

from functools import cache
from types import FunctionType
from typing import Any, cast

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.errors import NumbaError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array
from numba.np.numpy_support import from_dtype

from ._load import target
from ._signature import ALIGNED, C_CONTIGUOUS, Key
from ._source import Source, at_address, in_rows, scratch, settle, stream
from ._store import SYMBOL, Compiled

# Words of a NumPy array object behind the header of every Python object: data, number of dimensions, shape, strides.
_DATA, _SHAPE, _STRIDES = 0, 2, 3
_ALIGNMENT = 64
_NAME = "polyak_entry"
_RESULTS = {types.boolean: "?", types.int64: "q", types.float64: "d"}
_njit, _Compiler, _Library = (cast("Any", each) for each in (njit, Compiler, JITCodeLibrary))  # they have no types


class _Unrun(_Compiler):
    """Numba's compiler up to optimised LLVM code: machine code of each function would take a third of the time.

    Nobody runs it; a kernel becomes machine code once, as a whole.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.state.targetctx = self.state.targetctx.subtarget(get_executable=_optimised)

    def compile_extra(self, func: Any) -> Any:
        self.state.library = _Unloaded(self.state.targetctx.codegen(), func.__qualname__)
        return super().compile_extra(func)


class _Unloaded(_Library):
    """A module that is linked into others, and not given to the loader, which would make machine code of it."""

    def _finalize_final_module(self) -> None:
        self._finalized = True


def _optimised(library: Any, description: Any, environment: Any) -> Any:
    """Optimise a module. Numba knows its function by the object that is returned: a builtin, another each time."""
    library._ensure_finalized()
    return [].append


# Without NRT, which allocates and counts references.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "_nrt": False, "pipeline_class": _Unrun}


def build(kernel: Source, key: Key) -> Compiled:
    """Compile a kernel for some types of arguments and for this machine.

    Raises:
        TypeError: Numba cannot compile it, it needs something from outside, or its result has an unknown type.
    """
    result, module = module_of(kernel, key, SYMBOL)
    return Compiled(result, target().emit_object(module))


def module_of(kernel: Source, key: Key, symbol: str, *, shared: bool = False) -> tuple[str, Any]:
    """The letters of a kernel's result, and an LLVM module that defines it as `symbol` and needs nothing from outside.

    Args:
        kernel: The function to compile.
        key: The types of its arguments.
        symbol: The name of its entry point.
        shared: True if the module will be linked with others, which then have one copy of the functions they share.

    Raises:
        TypeError: As for `build`.
    """
    compiler = _njit(_signature(key), no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)
    try:
        entry = compiler(_entry(kernel, key))
    except NumbaError as error:
        raise TypeError(
            f"kernel {kernel.__name__} cannot be compiled. It must not allocate; what it needs is `scratch`."
        ) from error
    result = _result(entry.nopython_signatures[0].return_type, kernel.__name__)
    module = binding.parse_assembly(entry.inspect_llvm(entry.signatures[0]))
    return result, _closed(module, symbol, kernel.__name__, "linkonce_odr" if shared else "internal")


def _signature(key: Key) -> tuple[Any, ...]:
    return tuple(types.voidptr if isinstance(kind, tuple) else from_dtype(np.dtype(kind)) for kind in key)


def _entry(kernel: Source, key: Key) -> Any:
    """A function of addresses and numbers that calls the kernel with arrays and numbers."""
    names_in_entry: dict[str, Any] = {"kernel": _compilable(kernel), "array_at": _array_at}
    names, passed = [f"a{i}" for i in range(len(key))], list[str]()
    for name, kind in zip(names, key, strict=True):
        if isinstance(kind, tuple):
            names_in_entry[f"{name}_type"] = _array(*kind)
        passed.append(f"array_at({name}, {name}_type)" if isinstance(kind, tuple) else name)
    exec(f"def {_NAME}({', '.join(names)}):\n    return kernel({', '.join(passed)})", names_in_entry)
    return names_in_entry[_NAME]


@cache
def _compilable(source: Source) -> Any:
    """Return a function for Numba, with the functions it calls. Cached: a helper is compiled once for many kernels."""
    code = source.code
    names = {name: _replaced(code.__globals__[name]) for name in code.__code__.co_names if name in code.__globals__}
    bare = FunctionType(code.__code__, names, code.__name__, code.__defaults__)
    return _njit(inline="always" if source.inline else "never", **_OPTIONS)(bare)


def _replaced(value: Any) -> Any:
    if isinstance(value, Source):
        return _compilable(value)
    return next((intrinsic for function, intrinsic in _INTRINSICS.items() if function is value), value)


def _array(dtype: Any, ndim: int, layout: int) -> Any:
    contiguous = "C" if layout & C_CONTIGUOUS else "A"
    return types.Array(from_dtype(dtype), ndim, contiguous, aligned=bool(layout & ALIGNED))


@intrinsic
def _array_at(_: Any, address: Any, kind: Any) -> Any:
    """The array whose NumPy object has its header end at an address."""
    array = kind.instance_type

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = context.get_value_type(types.intp)
        words = builder.bitcast(args[0], word.as_pointer())
        entry = context.get_data_type(array.dtype)
        data = builder.inttoptr(_word(builder, words, _DATA), entry.as_pointer())
        shape = _words(builder, builder.inttoptr(_word(builder, words, _SHAPE), word.as_pointer()), array.ndim)
        strides = _words(builder, builder.inttoptr(_word(builder, words, _STRIDES), word.as_pointer()), array.ndim)
        return _whole(context, builder, array, data, shape, strides)

    return array(address, kind), generate


@intrinsic(prefer_literal=True)
def _scratch(_: Any, n: Any, dtype: Any) -> Any:
    array = types.Array(dtype.dtype, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        entry = context.get_data_type(array.dtype)
        data = cgutils.alloca_once(builder, ir.ArrayType(entry, n.literal_value))
        data.align = _ALIGNMENT
        pointer = builder.bitcast(data, entry.as_pointer())
        shape = [context.get_constant(types.intp, n.literal_value)]
        return _whole(context, builder, array, pointer, shape, [_itemsize(context, array)])

    return array(n, dtype), generate


@intrinsic
def _at_address(_: Any, address: Any, n: Any) -> Any:
    array = types.Array(types.float32, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        words = [context.cast(builder, arg, kind, types.intp) for arg, kind in zip(args, (address, n), strict=True)]
        data = builder.inttoptr(words[0], ir.FloatType().as_pointer())
        return _whole(context, builder, array, data, [words[1]], [_itemsize(context, array)])

    return array(address, n), generate


@intrinsic
def _in_rows(_: Any, flat: Any, rows: Any, n: Any) -> Any:
    array = types.Array(flat.dtype, 2, "C")

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = make_array(flat)(context, builder, args[0])
        shape = [context.cast(builder, arg, kind, types.intp) for arg, kind in zip(args[1:], (rows, n), strict=True)]
        itemsize = _itemsize(context, array)
        return _whole(context, builder, array, vector.data, shape, [builder.mul(shape[1], itemsize), itemsize])

    return array(flat, rows, n), generate


_LINE = 16  # float32 numbers per cache line


@intrinsic
def _stream(_: Any, source: Any, out: Any, begin: Any) -> Any:
    """Non-temporal stores of whole cache lines; entries before the first and after the last line go the usual way."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row, into = (make_array(kind)(context, builder, arg) for kind, arg in zip((source, out), args, strict=False))
        word = row.nitems.type
        to = cgutils.gep(builder, into.data, context.cast(builder, args[2], begin, types.intp))
        beyond = builder.lshr(builder.ptrtoint(to, word), word(2))
        head = builder.and_(builder.neg(beyond), word(_LINE - 1))
        head = builder.select(builder.icmp_unsigned("<", head, row.nitems), head, row.nitems)
        lines = builder.lshr(builder.sub(row.nitems, head), word(_LINE.bit_length() - 1))
        tail = builder.add(head, builder.mul(lines, word(_LINE)))
        _copy(builder, row.data, to, word(0), head)
        with cgutils.for_range(builder, lines) as loop:
            at = builder.add(head, builder.mul(loop.index, word(_LINE)))
            line = ir.VectorType(ir.FloatType(), _LINE).as_pointer()
            pointers = [builder.bitcast(cgutils.gep(builder, data, at), line) for data in (row.data, to)]
            written = builder.store(builder.load(pointers[0], align=4), pointers[1], align=4 * _LINE)
            written.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        _copy(builder, row.data, to, tail, row.nitems)
        return context.get_dummy_value()

    return types.void(source, out, begin), generate


def _copy(builder: Any, source: Any, to: Any, start: Any, stop: Any) -> None:
    with cgutils.for_range(builder, builder.sub(stop, start)) as loop:
        at = builder.add(start, loop.index)
        builder.store(builder.load(cgutils.gep(builder, source, at)), cgutils.gep(builder, to, at))


@intrinsic
def _settle(_: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


# In compiled code, on the right, what stands for the function on the left.
_INTRINSICS: dict[Any, Any] = {
    scratch: _scratch,
    at_address: _at_address,
    in_rows: _in_rows,
    stream: _stream,
    settle: _settle,
}


def _words(builder: Any, words: Any, n: int) -> list[Any]:
    return [_word(builder, words, i) for i in range(n)]


def _word(builder: Any, words: Any, number: int) -> Any:
    return builder.load(cgutils.gep(builder, words, number))


def _itemsize(context: Any, array: Any) -> Any:
    return context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array.dtype)))


def _whole(context: Any, builder: Any, array: Any, data: Any, shape: list[Any], strides: list[Any]) -> Any:
    """An array that owns nothing."""
    made = make_array(array)(context, builder)
    populate_array(made, data, shape, strides, _itemsize(context, array), None)
    return made._getvalue()


def _result(returned: Any, name: str) -> str:
    if returned == types.none:
        return ""
    items: tuple[Any, ...] | None = getattr(returned, "types", None)
    letters = [_RESULTS.get(types.unliteral(item)) for item in items or (returned,)]
    if None in letters or len(set(letters)) > 1:
        raise TypeError(f"kernel {name} returns {returned}; expected a number, a bool or a tuple of one such type.")
    return "-" * bool(items) + "".join(map(str, letters))


def _closed(module: Any, symbol: str, name: str, linkage: str) -> Any:
    """Rename the entry point to `symbol`, hide all other functions, and drop those that it does not need."""
    for function in module.functions:
        if _NAME in function.name:
            function.name = symbol
        elif not function.is_declaration:
            function.linkage = linkage
    drop_unused(module, target())
    outside = [f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")]
    if outside:
        raise TypeError(f"kernel {name} needs {', '.join(outside)}; it must not allocate, print or call libraries.")
    return module


def drop_unused(module: Any, machine: Any) -> None:
    """Remove functions that nothing outside can reach."""
    with binding.create_pass_builder(machine, binding.create_pipeline_tuning_options()) as passes:
        manager = binding.create_new_module_pass_manager()
        manager.add_global_dead_code_eliminate_pass()
        manager.run(module, passes)
