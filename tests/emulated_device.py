"""A second device in pure Python: its tensors say `emulated:0`, live on the CPU and refuse to mix.

    with active():
        module.to("emulated")(torch.randn(4, 3, device="emulated"))

What crashes on CUDA because tensors of two devices meet, because a generator belongs to another
device, or because NumPy is given device memory, crashes here too, with a message of the same kind.
Lightning takes it by `--trainer.accelerator emulated --trainer.strategy emulated`.

torch allocates and copies by the kernels registered below. Every other operation on a tensor of the
device comes to `EmulatedTensor.__torch_dispatch__`, in whatever thread, and is computed by the
CPU's kernels: results are the CPU's to the last bit where the same operations are called.

What it cannot show: Triton's kernels and on which GPU they are launched (`is_cuda` is False, so
torch's own products take their place), streams, atomic adds, the rounding of cuBLAS, autocast on
CUDA, nccl, memory, speed. There is one such device, without random numbers of its own: a generator
of the CPU is refused, and a draw without a generator is the CPU's. What is pickled is stored as
the CPU's, as if it were loaded with `map_location="cpu"`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import torch
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from lightning.pytorch.strategies import SingleDeviceStrategy, StrategyRegistry
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

NAME = "emulated"
HOST = torch.device("cpu")
MOVES = {"copy_", "_copy_from"}
"""Operations that take tensors of both devices."""
INDEXES = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}
"""Operations whose indices may lie on the CPU, as on CUDA, though not what they point into."""
TAKES_NO_SCALAR = {"cat", "stack"}
"""Operations that refuse a scalar of the CPU as well; the others take one, as on CUDA."""
MADE_ON_HOST = (
    *("arange", "arange.start", "arange.start_step", "linspace", "logspace", "eye", "eye.m"),
    *("triu_indices", "tril_indices"),
)
"""Factories that torch would have resize an empty tensor, which a wrapper cannot."""
listeners: list[Callable[[bool], None]] = []
"""Told of copies to the device that torch makes below dispatch, as in `torch.tensor(1, device=…)`,
and whether the host goes on meanwhile."""


class EmulatedTensor(Tensor):
    """A tensor of the device; `host` is the one that stands behind it."""

    host: Tensor

    @staticmethod
    @torch.inference_mode(False)  # of whose tensors torch takes no views of wrappers
    def __new__(cls, host: Tensor) -> "EmulatedTensor":
        about: Any = {"layout": host.layout}
        if host.layout == torch.strided:
            about |= {"strides": host.stride(), "storage_offset": host.storage_offset()}
        device = torch.device(NAME, 0)
        made = Tensor._make_wrapper_subclass(
            cls, host.size(), dtype=host.dtype, device=device, **about
        )
        made.host = host
        return made

    @property
    def data(self) -> Tensor:
        return Tensor.data.__get__(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, other: Tensor) -> None:
        Tensor.data.__set__(self, other)  # type: ignore[attr-defined]
        self.host = other.host  # type: ignore[attr-defined]

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"{NAME}({self.host!r})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first"
        )

    __array__ = numpy

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.detach().cpu().requires_grad_(self.requires_grad).__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        devices = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
        if not devices:
            _check_together(func.overloadpacket.__name__, args, kwargs)
        out = func(*tree_map(_behind, args), **tree_map(_behind, kwargs))
        if any(device.type != NAME for device in devices):
            return out
        if torch.Tag.inplace_view in func.tags:  # `squeeze_` and such: the wrapper's shape as well
            with torch._C._DisableTorchDispatch():
                func(*args, **kwargs)
        # what is changed in place, or given as `out`, is returned itself
        given = {id(t.host): t for t in leaves if isinstance(t, cls)}
        for tensor in given.values():
            assert tensor.shape == tensor.host.shape, f"{func} resizes: give it a kernel above"
        given |= {id(t): t for t in leaves if isinstance(t, Tensor)}
        return tree_map(lambda x: given[id(x)] if id(x) in given else _on_device(x), out)


def _behind(x: Any) -> Any:
    """Return what stands for a tensor, or the device, on the host."""
    if isinstance(x, torch.device):
        return HOST
    return x.host if isinstance(x, EmulatedTensor) else x


def _on_device(x: Any) -> Any:
    return EmulatedTensor(x) if isinstance(x, Tensor) else x


def _check_together(name: str, args: Any, kwargs: Any) -> None:
    """Raise RuntimeError where CUDA would: tensors of both devices, a generator of the other."""
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type != NAME:
        found = generator.device.type
        raise RuntimeError(
            f"{name}: Expected a '{NAME}' device type for generator, found '{found}'"
        )
    if name in MOVES:
        return
    counted = (args[0], *args[2:]) if name in INDEXES else args
    tensors = [t for t in tree_leaves((counted, kwargs)) if isinstance(t, Tensor)]
    is_changed = name.endswith("_") and tensors and tensors[0] is args[0]
    strange = [
        tuple(t.shape)
        for number, t in enumerate(tensors)
        if not isinstance(t, EmulatedTensor)
        and (t.dim() > 0 or name in TAKES_NO_SCALAR or (is_changed and number == 0))
    ]
    if strange:
        raise RuntimeError(
            f"{name}: Expected all tensors to be on the same device, but found at least two "
            f"devices, {NAME}:0 and cpu! Of the latter: {strange}"
        )


class EmulatedAccelerator(Accelerator):
    """Lightning's view of the device."""

    def setup_device(self, device: torch.device) -> None:
        assert device.type == NAME, device

    def teardown(self) -> None: ...

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> int:
        return int(devices)

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device(NAME, 0)] * devices

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return _backend.is_active

    @staticmethod
    def name() -> str:
        return NAME


class _Backend(ModuleType):
    """What torch calls `torch.emulated`."""

    is_active = False

    def is_available(self) -> bool:
        return self.is_active

    is_initialized = is_available

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return int(self.is_active)

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None: ...

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_backend = _Backend(f"torch.{NAME}")
_kernels = torch.library.Library("aten", "IMPL", "PrivateUse1")
_autocast = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
"""They live as long as the process: torch forgets what is registered with them."""


def _empty(size: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return EmulatedTensor(torch.empty(size, dtype=dtype, device=HOST))


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return EmulatedTensor(torch.empty_strided(size, stride, dtype=dtype, device=HOST))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    for hear in listeners:
        hear(non_blocking)
    _behind(target).copy_(_behind(source))
    return target


def _made_by(factory: Any) -> Any:
    def make(*args: Any, device: Any = None, **options: Any) -> Tensor:
        return EmulatedTensor(factory(*args, **options, device=HOST))

    return make


@cache
def _register() -> None:
    """Tell torch and Lightning of the device, once and for all."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_backend)
    _kernels.impl("empty.memory_format", _empty)
    _kernels.impl("empty_strided", _empty_strided)
    _kernels.impl("_copy_from", _copy_from)
    _kernels.impl("_local_scalar_dense", lambda scalar: scalar.host.item())
    _autocast.fallback(torch.library.fallthrough_kernel)
    for name in MADE_ON_HOST:
        factory, _, overload = name.partition(".")
        operation = getattr(getattr(torch.ops.aten, factory), overload or "default")
        _kernels.impl(name, _made_by(operation))
    AcceleratorRegistry.register(NAME, EmulatedAccelerator)
    StrategyRegistry.register(NAME, SingleDeviceStrategy, device=torch.device(NAME, 0))


@contextmanager
def active() -> Iterator[torch.device]:
    """Have the device inside; yield it."""
    _register()
    before = torch.__future__.get_swap_module_params_on_conversion()
    # `module.to` changes parameters in place, which torch does not do between kinds of tensors
    torch.__future__.set_swap_module_params_on_conversion(True)
    _backend.is_active = True
    try:
        yield torch.device(NAME, 0)
    finally:
        _backend.is_active = False
        torch.__future__.set_swap_module_params_on_conversion(before)
