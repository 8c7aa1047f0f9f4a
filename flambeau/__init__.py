"""flambeau: PyTorch, written anew in Python.  ``import flambeau as torch``."""

from flambeau import bindings  # noqa: I001 - attaches the methods before anything uses them
from flambeau import version
from flambeau.core.config import config
from flambeau.core.device import device
from flambeau.core.dtype import (
    bfloat16,
    bool_ as bool,
    complex64,
    complex128,
    dtype,
    finfo,
    float16,
    float32,
    float64,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    uint8,
)
from flambeau.core.layout import Size
from flambeau.core.memory_format import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    layout,
    memory_format,
    preserve_format,
    sparse_coo,
    sparse_csr,
    strided,
)
from flambeau.tensor import Tensor
from flambeau.tensor_creation import as_tensor, asarray, from_numpy, frombuffer, tensor
from flambeau.engine.flush import synchronize
from flambeau.engine.generator import Generator, default_generator
from flambeau.graph import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from flambeau.ops.conversion import clone
from flambeau.ops.creation import (
    arange,
    empty,
    empty_like,
    empty_strided,
    eye,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    range_ as range,
    scalar_tensor,
    zeros,
    zeros_like,
)
from flambeau.ops.random import (
    alpha_dropout,
    bernoulli,
    dropout,
    feature_alpha_dropout,
    feature_dropout,
    multinomial,
    normal,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
)
from flambeau.printing import set_printoptions
from flambeau.random import get_rng_state, initial_seed, manual_seed, seed, set_rng_state
from flambeau.settings import (
    are_deterministic_algorithms_enabled,
    can_cast,
    get_default_device,
    get_default_dtype,
    get_float32_matmul_precision,
    get_num_interop_threads,
    get_num_threads,
    is_complex,
    is_floating_point,
    is_nonzero,
    is_storage,
    is_tensor,
    numel,
    result_type,
    set_default_device,
    set_default_dtype,
    set_default_tensor_type,
    set_float32_matmul_precision,
    set_num_interop_threads,
    set_num_threads,
    use_deterministic_algorithms,
)
from flambeau.ops.operator import OPERATORS as _OPERATORS

for _op in _OPERATORS.values():
    if "function" in _op.variants:
        for _name in (_op.name, *_op.aliases):
            globals()[_name] = _op

_IN_PLACE_FUNCTIONS = frozenset(
    "abs_ acos_ acosh_ addmv_ arccos_ arccosh_ arcsin_ arcsinh_ arctan_ arctanh_ asin_ asinh_ atan_ "
    "atanh_ ceil_ celu_ clamp_ clamp_max_ clamp_min_ clip_ cos_ cosh_ deg2rad_ erf_ erfc_ exp2_ exp_ "
    "expm1_ fix_ floor_ frac_ ldexp_ log10_ log1p_ log2_ log_ logit_ nan_to_num_ neg_ negative_ "
    "rad2deg_ reciprocal_ relu_ round_ rrelu_ rsqrt_ selu_ sigmoid_ sin_ sinc_ sinh_ sqrt_ square_ "
    "tan_ tanh_ threshold_ trunc_ xlogy_".split()
)
for _op in _OPERATORS.values():
    for _name in (_op.name, *_op.aliases):
        if f"{_name}_" in _IN_PLACE_FUNCTIONS:
            globals()[f"{_name}_"] = bindings.inplace_method(_op)
for _name in ("detach_", "fill_", "zero_"):
    globals()[_name] = getattr(Tensor, _name)

from math import e, inf, nan, pi

from flambeau.version import __version__

newaxis = None
float = float32
double = float64
half = float16
long = int64
int = int32
short = int16
cfloat = complex64
cdouble = complex128

from flambeau import autograd, cuda, nn, optim, random, serialization, special, utils  # noqa: E402
from flambeau.compat.torch_alias import install_as_torch  # noqa: E402
from flambeau.serialization import load, save  # noqa: E402
