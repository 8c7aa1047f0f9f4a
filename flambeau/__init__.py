"""flambeau: PyTorch, written anew in Python.  ``import flambeau as torch``.

Public names, nothing else; each is imported from where it is defined, under its own name.
"""

from math import e, inf, nan, pi

from flambeau import (
    _dynamo,
    _inductor,
    accelerator,
    autograd,
    backends,
    bindings,
    cpu,
    cuda,
    functional,
    linalg,
    nn,
    optim,
    random,
    serialization,
    special,
    storage,
    testing,
    types,
    utils,
    version,
)
from flambeau.capture import public as compiler
from flambeau.capture.api import compile
from flambeau.compat.torch_alias import install_as_torch
from flambeau.core.config import config
from flambeau.core.device import device
from flambeau.core.dtype import (
    bfloat16,
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
from flambeau.core.dtype import (
    bool_ as bool,
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
from flambeau.engine.flush import synchronize
from flambeau.engine.generator import Generator, default_generator
from flambeau.engine.inspect import explain
from flambeau.graph import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from flambeau.interchange import from_dlpack
from flambeau.nn.functional.recurrent import (
    gru,
    gru_cell,
    lstm,
    lstm_cell,
    rnn_relu,
    rnn_relu_cell,
    rnn_tanh,
    rnn_tanh_cell,
)
from flambeau.nn.naming import typename
from flambeau.ops import return_types
from flambeau.ops.activation import celu, hardshrink, prelu, relu, rrelu, selu, threshold
from flambeau.ops.arrangement import (
    adjoint,
    argwhere,
    atleast_1d,
    atleast_2d,
    atleast_3d,
    block_diag,
    broadcast_shapes,
    broadcast_tensors,
    broadcast_to,
    cartesian_prod,
    combinations,
    conj,
    cross,
    diff,
    dist,
    is_same_size,
    meshgrid,
    ravel,
    real,
    split_with_sizes,
    take_along_dim,
    trace,
)
from flambeau.ops.arrangement import nonzero_of as nonzero
from flambeau.ops.channels import channel_shuffle, pixel_shuffle, pixel_unshuffle
from flambeau.ops.clamp import clamp, clamp_max, clamp_min
from flambeau.ops.closeness import allclose, equal, isclose, isin
from flambeau.ops.combination import (
    addcdiv,
    addcmul,
    copysign,
    heaviside,
    lerp,
    masked_fill,
    nan_to_num,
)
from flambeau.ops.comparison import (
    bitwise_and,
    bitwise_left_shift,
    bitwise_not,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    eq,
    ge,
    gt,
    isfinite,
    isinf,
    isnan,
    isneginf,
    isposinf,
    le,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    ne,
    signbit,
)
from flambeau.ops.contraction import einsum, tensordot
from flambeau.ops.conversion import clone
from flambeau.ops.convolution import conv1d, conv2d
from flambeau.ops.creation import (
    arange,
    empty,
    empty_like,
    empty_strided,
    eye,
    fill,
    full,
    full_like,
    linspace,
    logspace,
    ones,
    ones_like,
    scalar_tensor,
    zeros,
    zeros_like,
)
from flambeau.ops.creation import (
    range_ as range,
)
from flambeau.ops.distinct import (
    bincount,
    bucketize,
    histc,
    nanquantile,
    quantile,
    searchsorted,
    unique,
    unique_consecutive,
)
from flambeau.ops.embedding import embedding
from flambeau.ops.exponential import (
    exp,
    exp2,
    expm1,
    log,
    log1p,
    log2,
    log10,
    logaddexp,
    logaddexp2,
    logit,
    sigmoid,
    xlogy,
)
from flambeau.ops.extreme import amax, amin, aminmax, argmax, argmin, max, min
from flambeau.ops.indexing import (
    gather,
    index_add,
    index_copy,
    index_fill,
    index_put,
    index_select,
    masked_scatter,
    masked_select,
    scatter,
    scatter_add,
)
from flambeau.ops.indexing import take_flat as take
from flambeau.ops.inplace import (
    abs_,
    acos_,
    acosh_,
    addmv_,
    arccos_,
    arccosh_,
    arcsin_,
    arcsinh_,
    arctan_,
    arctanh_,
    asin_,
    asinh_,
    atan_,
    atanh_,
    ceil_,
    celu_,
    clamp_,
    clamp_max_,
    clamp_min_,
    clip_,
    cos_,
    cosh_,
    deg2rad_,
    detach_,
    erf_,
    erfc_,
    exp2_,
    exp_,
    expm1_,
    fill_,
    fix_,
    floor_,
    frac_,
    ldexp_,
    log1p_,
    log2_,
    log10_,
    log_,
    logit_,
    nan_to_num_,
    neg_,
    negative_,
    rad2deg_,
    reciprocal_,
    relu_,
    round_,
    rrelu_,
    rsqrt_,
    selu_,
    sigmoid_,
    sin_,
    sinc_,
    sinh_,
    sqrt_,
    square_,
    tan_,
    tanh_,
    threshold_,
    trunc_,
    xlogy_,
    zero_,
)
from flambeau.ops.joining import (
    cat,
    chunk,
    column_stack,
    diag,
    diag_embed,
    dsplit,
    dstack,
    flip,
    fliplr,
    flipud,
    hsplit,
    hstack,
    movedim,
    repeat_interleave,
    roll,
    rot90,
    split,
    stack,
    tensor_split,
    tile,
    tril,
    tril_indices,
    triu,
    triu_indices,
    unbind,
    unflatten,
    vsplit,
    vstack,
)
from flambeau.ops.linear_algebra import (
    addbmm,
    addr,
    cdist,
    cosine_similarity,
    inner,
    kron,
    matrix_power,
    pairwise_distance,
    vdot,
)
from flambeau.ops.loss import (
    binary_cross_entropy_with_logits,
    cosine_embedding_loss,
    hinge_embedding_loss,
    kl_div,
    margin_ranking_loss,
    poisson_nll_loss,
)
from flambeau.ops.matmul import addmm, addmv, baddbmm, bmm, dot, matmul, mm, mv, outer
from flambeau.ops.norm import norm
from flambeau.ops.normalization import (
    batch_norm,
    group_norm,
    layer_norm,
    log_softmax,
    native_batch_norm,
    native_group_norm,
    native_layer_norm,
    rms_norm,
    softmax,
)
from flambeau.ops.numeric import (
    angle,
    conj_physical,
    float_power,
    frexp,
    gcd,
    imag,
    is_conj,
    is_neg,
    isreal,
    lcm,
    ldexp,
    nextafter,
    resolve_conj,
    resolve_neg,
)
from flambeau.ops.pointwise import (
    abs,
    add,
    div,
    floor_divide,
    fmax,
    fmin,
    fmod,
    maximum,
    minimum,
    mul,
    neg,
    positive,
    reciprocal,
    remainder,
    rsub,
    sgn,
    sign,
    sub,
    true_divide,
    where,
)
from flambeau.ops.pooling import (
    adaptive_avg_pool1d,
    adaptive_max_pool1d,
    avg_pool1d,
    max_pool1d,
    max_pool1d_with_indices,
    max_pool2d,
)
from flambeau.ops.power import pow, rsqrt, sqrt, square
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
from flambeau.ops.reduction import (
    all,
    any,
    count_nonzero,
    logsumexp,
    mean,
    nanmean,
    nansum,
    prod,
    std,
    std_mean,
    sum,
    var,
    var_mean,
)
from flambeau.ops.rounding import ceil, floor, frac, round, trunc
from flambeau.ops.scan import cummax, cummin, cumprod, cumsum, logcumsumexp
from flambeau.ops.scatter_reduce import scatter_reduce
from flambeau.ops.sorting import argsort, kthvalue, median, mode, msort, nanmedian, sort, topk
from flambeau.ops.special import digamma, erf, erfc, erfinv, i0, lgamma, mvlgamma, polygamma, sinc
from flambeau.ops.transposed_convolution import conv_transpose1d, conv_transpose2d
from flambeau.ops.trigonometry import (
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    cos,
    cosh,
    deg2rad,
    hypot,
    rad2deg,
    sin,
    sinh,
    tan,
    tanh,
)
from flambeau.ops.view import (
    as_strided,
    detach,
    diagonal,
    flatten,
    narrow,
    permute,
    reshape,
    select,
    squeeze,
    t,
    transpose,
    unsqueeze,
)
from flambeau.ops.view_copies import (
    alias_copy,
    as_strided_copy,
    diagflat,
    diagonal_copy,
    diagonal_scatter,
    expand_copy,
    narrow_copy,
    permute_copy,
    select_copy,
    select_scatter,
    slice_copy,
    slice_scatter,
    split_copy,
    squeeze_copy,
    t_copy,
    transpose_copy,
    unbind_copy,
    unfold_copy,
    unsqueeze_copy,
    view_copy,
)
from flambeau.ops.volume_convolution import conv3d, conv_transpose3d
from flambeau.ops.volume_pooling import max_pool3d
from flambeau.printing import set_printoptions
from flambeau.random import get_rng_state, initial_seed, manual_seed, seed, set_rng_state
from flambeau.serialization import load, save
from flambeau.settings import (
    are_deterministic_algorithms_enabled,
    can_cast,
    get_default_device,
    get_default_dtype,
    get_device,
    get_float32_matmul_precision,
    get_num_interop_threads,
    get_num_threads,
    is_complex,
    is_deterministic_algorithms_warn_only_enabled,
    is_floating_point,
    is_nonzero,
    is_signed,
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
from flambeau.storage import TypedStorage, UntypedStorage
from flambeau.tensor import Tensor
from flambeau.tensor_creation import as_tensor, asarray, from_numpy, frombuffer, tensor
from flambeau.tensor_types import (
    BFloat16Tensor,
    BoolTensor,
    ByteTensor,
    CharTensor,
    DoubleTensor,
    FloatTensor,
    HalfTensor,
    IntTensor,
    LongTensor,
    ShortTensor,
)
from flambeau.version import __version__

# Types' second names.
cdouble = complex128
cfloat = complex64
double = float64
float = float32
half = float16
int = int32
long = int64
short = int16

# Functions' second names.
absolute = abs
arccos = acos
arccosh = acosh
arcsin = asin
arcsinh = asinh
arctan = atan
arctan2 = atan2
arctanh = atanh
clip = clamp
concat = cat
concatenate = cat
divide = div
fix = trunc
ger = outer
greater = gt
greater_equal = ge
less = lt
less_equal = le
moveaxis = movedim
multiply = mul
negative = neg
not_equal = ne
subtract = sub
swapaxes = transpose
swapdims = transpose

newaxis = None
