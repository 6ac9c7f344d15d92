"""A device that is not the CPU, computed on the CPU: what MPS refuses, it refuses, too.

MPS holds no float64 and no complex128, and no device computes with tensors that lie on another. A tensor of
:class:`Elsewhere` says that it lies on ``DEVICE`` and holds its numbers in a CPU tensor; :class:`ElsewhereMode` makes new
tensors on that device, where code asks for some.
"""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only

DEVICE = torch.device("meta")
"""One that torch always knows; its name is all that is used of it."""
REFUSED = (torch.float64, torch.complex128)

EAGER = {"aten::_conj": torch.ops.aten.conj_physical.default, "aten::_neg_view": torch.ops.aten.neg.default}
"""Views that torch resolves by a bit, which what is wrapped would not get."""


class Elsewhere(torch.Tensor):
    """A tensor on ``DEVICE``."""

    @staticmethod
    def __new__(cls, values):
        if values.dtype in REFUSED:
            raise TypeError(f"{values.dtype} on a device that has none")
        return torch.Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype,
            device=DEVICE, requires_grad=False,
        )  # fmt: skip

    def __init__(self, values):
        self.values = values

    def __repr__(self):
        return f"Elsewhere({self.values})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self):
        return self.detach().values.tolist()

    def new_tensor(self, numbers, *, dtype=None, device=DEVICE):
        return torch.tensor(numbers, dtype=dtype or self.dtype).to(device)

    def numpy(self, *, force=False):
        raise TypeError(f"a tensor on {DEVICE} as an array: .cpu() first")

    __array__ = numpy

    def __getitem__(self, key):
        return super().__getitem__(indices_in(key))

    def __setitem__(self, key, value):
        super().__setitem__(indices_in(key), value)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


def computed(function, args, kwargs):
    """What a device would answer: its own tensors stay with it, the CPU's do not mix with them."""
    given = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
    ours = any(isinstance(one, Elsewhere) for one in given)
    name = function.name()
    function = EAGER.get(name, function)
    moves = name in ("aten::_to_copy", "aten::copy_") or name.startswith("aten::index")  # indices may lie on the CPU
    if ours and not moves:
        strangers = [one for one in given if not isinstance(one, Elsewhere) and one.ndim > 0]
        if strangers:
            raise RuntimeError(f"{name}: tensors on {DEVICE} and on the CPU together")
    device = kwargs.get("device")
    if device is not None:
        ours = torch.device(device) == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    elif name == "aten::copy_":
        ours = isinstance(args[0], Elsewhere)
    elif name == "aten::_local_scalar_dense":
        ours = False
    with no_dispatch():
        plain_args, plain_kwargs = tree_map(plain, (args, kwargs))
        found = function(*plain_args, **plain_kwargs)
    same = {id(plain(one)): one for one in given}  # what is changed in place stays the same tensor

    def back(value):
        if not isinstance(value, torch.Tensor) or not ours:
            return value
        return same.get(id(value)) if id(value) in same else Elsewhere(value)

    return tree_map(back, found)


def indices_in(key):
    """An index whose lists are tensors: of lists torch makes some on the device without asking."""

    def made(numbers):
        found = torch.tensor(numbers)
        return found if found.numel() else found.long()

    return tree_map_only(list, made, key, is_leaf=lambda one: isinstance(one, list))


def plain(value):
    return value.values if isinstance(value, Elsewhere) else value


@contextlib.contextmanager
def no_dispatch():
    guard = torch._C._DisableTorchDispatch()
    try:
        yield
    finally:
        del guard


class ElsewhereMode(TorchDispatchMode):
    """Where tensors that are asked for on ``DEVICE`` come from."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


def from_numbers(make):
    """``torch.tensor`` and its like, which make tensors on a device without asking any dispatch."""

    def made(*args, **kwargs):
        if torch.device(kwargs.get("device") or "cpu") != DEVICE:
            return make(*args, **kwargs)
        del kwargs["device"]
        return make(*args, **kwargs).to(DEVICE)

    return made


@contextlib.contextmanager
def elsewhere(monkeypatch):
    """Inside, ``DEVICE`` computes."""
    autocast = torch.autocast
    monkeypatch.setattr(  # which knows real devices alone
        torch,
        "autocast",
        lambda kind, *a, **k: contextlib.nullcontext() if kind == DEVICE.type else autocast(kind, *a, **k),
    )
    for name in ("tensor", "as_tensor"):
        monkeypatch.setattr(torch, name, from_numbers(getattr(torch, name)))
    with ElsewhereMode():
        yield
