"""Names that a PyTorch pickle may use, and the inert stand-in for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from ...errors import UnsupportedFormat
from .._api import DTYPES, DType
from .unpickler import Opaque


@dataclass(frozen=True, slots=True)
class Storage:
    """A range of bytes in the file.

    Attributes:
        key: Its name in the file.
        nbytes: Its length according to the pickle.
        dtype: The dtype of its tensors; None if each tensor states its own, or polyak cannot read it.
        kind: The name of its class in PyTorch.
        start: Offset of its first byte (old files have views of storages).
    """

    key: str
    nbytes: int
    dtype: DType | None
    kind: str
    start: int = 0


@dataclass(frozen=True, slots=True)
class StridedTensor:
    """A view of a storage: element i, j, ... is at offset + i * stride[0] + j * stride[1] ..., in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A tensor of a kind that polyak cannot read; refused if it belongs to the model."""

    kind: str


@dataclass(frozen=True, slots=True)
class Named:
    """A dtype or a storage class."""

    name: str
    dtype: DType | None
    itemsize: int

    def build(self, args: tuple[Any, ...]) -> object:
        raise TypeError(f"{self.name} is called")


@dataclass(frozen=True, slots=True)
class Function:
    """The stand-in for a function of PyTorch."""

    run: Callable[..., object]

    def build(self, args: tuple[Any, ...]) -> object:
        return self.run(*args)


def find_global(module: str, name: str, where: str) -> object:
    """The stand-in for an importable name.

    Raises:
        UnsupportedFormat: the name is not on the list of allowed names.
    """
    stand_in = _GLOBALS.get(f"{module}.{name}")
    if stand_in is None and module in ("torch", "torch.cuda", "torch.storage") and name.endswith("Storage"):
        stand_in = _STORAGES.get(name)
    if stand_in is None:
        remedy = "Save the state dict alone (`torch.save(model.state_dict(), ...)`)."
        if "torch" not in module:
            remedy = "Weights do not need it: ask the author of the file for safetensors or a plain state dict."
        raise UnsupportedFormat(f"{where} would run {module[:80]}.{name[:80]}; refused. {remedy}")
    return stand_in


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> object:
    metadata: Any = rest[2] if len(rest) > 2 else None
    return _view(storage, offset, shape, stride, None, metadata)


def _tensor_of(
    storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *rest: Any
) -> object:
    return _view(storage, offset, shape, stride, dtype, rest[0] if rest else None)


def _view(storage: Any, offset: Any, shape: Any, stride: Any, dtype: Any, metadata: Any) -> object:
    if not isinstance(storage, Storage) or not (dtype is None or isinstance(dtype, Named)):
        raise TypeError("a tensor is built on something other than a storage")
    element = storage.dtype if dtype is None else dtype.dtype
    if element is None:
        return Unreadable(storage.kind if dtype is None else dtype.name)
    if metadata and (not isinstance(metadata, dict) or any(cast("dict[str, Any]", metadata).values())):
        return Unreadable("lazily negated or conjugated view")
    numbers = offset, *shape, *stride
    if len(shape) != len(stride) or len(shape) > 64 or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
        raise ValueError("a tensor has an impossible shape, stride or offset")
    return StridedTensor(storage, offset, tuple(shape), tuple(stride), element)


def _typed(function: Any, _type: Any, args: Any, _state: Any) -> object:
    """Build a tensor with attributes, which are dropped."""
    if not isinstance(function, Function) or type(args) is not tuple:
        raise TypeError("a tensor is built by something other than a function")
    return function.run(*args)


def _parameter(data: Any, *_rest: Any) -> object:
    return data


def _size(sizes: Any = ()) -> object:
    return tuple(cast("list[Any]", sizes)) if isinstance(sizes, list | tuple) else Opaque()


def _new_mapping(items: Any = ()) -> object:
    pairs = cast("dict[Any, Any]", items).items() if isinstance(items, dict) else cast("list[Any]", items)
    return {key: value for key, value in pairs if isinstance(key, str | int)}


def _refused(kind: str) -> Function:
    return Function(lambda *_args: Unreadable(kind))


_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "float": "F32", "double": "F64", "half": "F16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "bool": "BOOL", "long": "I64", "int": "I32", "short": "I16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
}  # fmt: skip

_FOREIGN_DTYPES = [
    "complex32", "complex64", "complex128", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2",
    "qint8", "quint8", "qint32", "quint4x2", "quint2x4", "bits1x8", "bits2x4", "bits4x2", "bits8", "bits16",
    *(f"{sign}int{width}" for sign in ("", "u") for width in range(1, 8)),
]  # fmt: skip

_STORAGES: Mapping[str, Named] = MappingProxyType(
    {
        **{
            f"{kind}Storage": Named(f"torch.{kind}Storage", DTYPES[dtype], DTYPES[dtype].itemsize)
            for kind, dtype in [
                ("Double", "F64"), ("Float", "F32"), ("Half", "F16"), ("BFloat16", "BF16"), ("Long", "I64"),
                ("Int", "I32"), ("Short", "I16"), ("Char", "I8"), ("Byte", "U8"), ("Bool", "BOOL"),
                ("Untyped", "U8"),
            ]
        },
        **{
            f"{kind}Storage": Named(f"torch.{kind}Storage", None, size)
            for kind, size in [
                ("ComplexFloat", 8), ("ComplexDouble", 16), ("QInt8", 1), ("QUInt8", 1), ("QInt32", 4),
                ("QUInt4x2", 1), ("QUInt2x4", 1),
            ]
        },
    }
)  # fmt: skip

_MAPPINGS = ["collections.OrderedDict", "collections.Counter", "builtins.dict", "__builtin__.dict"]

# Values that training loops save with the weights, and that no tensor needs.
_OPAQUE = [
    "collections.deque", "builtins.list", "builtins.tuple", "builtins.int", "builtins.float",
    "builtins.set", "builtins.frozenset", "builtins.complex", "builtins.bytearray", "builtins.slice", "builtins.range",
    "__builtin__.set", "__builtin__.frozenset", "__builtin__.list", "__builtin__.complex", "__builtin__.bytearray",
    "argparse.Namespace", "types.SimpleNamespace", "datetime.datetime", "datetime.timedelta", "_codecs.encode",
    "pathlib.Path", "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath",
    "numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
    "torch.device",
    "torch.serialization._get_layout", "torch.utils.hooks.unserializable_hook",
    *(f"torch.{name}" for name in (
        "per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric",
        "per_channel_affine_float_qparams", "contiguous_format", "channels_last", "preserve_format",
    )),
]  # fmt: skip

_GLOBALS: Mapping[str, object] = MappingProxyType(
    {
        **{name: Opaque() for name in _OPAQUE},
        **{name: Function(_new_mapping) for name in _MAPPINGS},
        **{
            f"torch.{name}": Named(f"torch.{name}", DTYPES[stored], DTYPES[stored].itemsize)
            for name, stored in _DTYPES.items()
        },
        **{f"torch.{name}": Named(f"torch.{name}", None, 1) for name in _FOREIGN_DTYPES},
        **{
            name: Named(name, None, 1)
            for name in ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.Parameter")
        },
        "collections.defaultdict": Function(lambda *_factory: {}),
        "torch.Size": Function(_size),
        "torch._utils._rebuild_tensor": Function(_tensor),
        "torch._utils._rebuild_tensor_v2": Function(_tensor),
        "torch._utils._rebuild_tensor_v3": Function(_tensor_of),
        "torch._utils._rebuild_parameter": Function(_parameter),
        "torch._utils._rebuild_parameter_with_state": Function(_parameter),
        "torch._tensor._rebuild_from_type_v2": Function(_typed),
        "torch._utils._rebuild_qtensor": _refused("quantised tensor"),
        "torch._utils._rebuild_sparse_tensor": _refused("sparse tensor"),
        "torch._utils._rebuild_sparse_csr_tensor": _refused("sparse tensor"),
        "torch._utils._rebuild_nested_tensor": _refused("nested tensor"),
        "torch._utils._rebuild_meta_tensor_no_storage": _refused("tensor without data (meta device)"),
        "torch._utils._rebuild_wrapper_subclass": _refused("tensor subclass"),
        "torch._utils._rebuild_device_tensor_from_numpy": _refused("tensor from a device without storage"),
        "torch._utils._rebuild_device_tensor_from_cpu_tensor": _refused("tensor from a device without storage"),
    }
)
