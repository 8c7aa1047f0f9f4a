"""Attention and transformer modules as small programs; each begins after ``manual_seed(0)``."""

ALL = {}


def script(function):
    ALL[function.__name__] = function
    return function


def describe(torch, name):
    torch.manual_seed(0)
    return as_json(ALL[name](torch))


def as_json(value):
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "tolist"):
        return as_json(value.tolist())
    return str(value)


def numbers(torch, *shape):
    """Fixed inputs that do not touch the generator."""
    count = 1
    for n in shape:
        count *= n
    return torch.sin(torch.arange(count, dtype=torch.float32) * 1.3).reshape(shape)


def outcome(module, inputs, results):
    """Results, and the gradients of the inputs and of all parameters."""
    results = [r for r in results if r is not None]
    total = sum((r * (i + 1)).square().sum() for i, r in enumerate(results))
    total.backward()
    grads = {name: p.grad for name, p in module.named_parameters()}
    return [results, [x.grad for x in inputs], grads]


MASKS = {
    "none": lambda torch: {},
    "causal": lambda torch: {"attn_mask": hidden(torch, 3, 5), "need_weights": False},
    "bool": lambda torch: {"attn_mask": hidden(torch, 3, 5)},
    "added": lambda torch: {"attn_mask": numbers(torch, 3, 5), "need_weights": False},
    "per_head": lambda torch: {"attn_mask": numbers(torch, 4, 3, 5)},
    "padding": lambda torch: {"key_padding_mask": padding(torch)},
    "padding_alone": lambda torch: {"key_padding_mask": padding(torch), "need_weights": False},
    "both": lambda torch: {"key_padding_mask": padding(torch), "attn_mask": hidden(torch, 3, 5)},
    "each_head": lambda torch: {"average_attn_weights": False},
}

OPTIONS = {
    "plain": {},
    "no_bias": {"bias": False},
    "extra_key": {"add_bias_kv": True},
    "zero_key": {"add_zero_attn": True},
    "both_keys": {"add_bias_kv": True, "add_zero_attn": True},
    "other_features": {"kdim": 3, "vdim": 5},
    "dropout": {"dropout": 0.4},
}


def hidden(torch, rows, columns):
    return torch.ones(rows, columns, dtype=torch.bool).triu(1)


def padding(torch):
    return torch.tensor([[False] * 5, [False, False, False, True, True]])


def attend(torch, options, mask):
    module = torch.nn.MultiheadAttention(6, 2, **options)
    sizes = ((3, 2, 6), (5, 2, options.get("kdim", 6)), (5, 2, options.get("vdim", 6)))
    inputs = [numbers(torch, *size).requires_grad_() for size in sizes]
    return outcome(module, inputs, module(*inputs, **MASKS[mask](torch)))


for _option, _arguments in OPTIONS.items():
    ALL[f"attention_{_option}"] = lambda torch, a=_arguments: attend(torch, a, "none")
    ALL[f"attention_{_option}_both"] = lambda torch, a=_arguments: attend(torch, a, "both")
    ALL[f"attention_{_option}_causal"] = lambda torch, a=_arguments: attend(torch, a, "causal")
for _mask in MASKS:
    ALL[f"attention_mask_{_mask}"] = lambda torch, m=_mask: attend(torch, {}, m)


@script
def self_attention_batch_first(torch):
    module = torch.nn.MultiheadAttention(6, 3, batch_first=True)
    x = numbers(torch, 2, 4, 6).requires_grad_()
    mask = hidden(torch, 4, 4)
    result, weights = module(x, x, x, need_weights=False, attn_mask=mask, is_causal=True)
    assert weights is None
    return [outcome(module, [x], [result]), list(result.stride())]


@script
def attention_without_batch(torch):
    module = torch.nn.MultiheadAttention(6, 2)
    x, y = numbers(torch, 3, 6).requires_grad_(), numbers(torch, 5, 6).requires_grad_()
    mask = torch.tensor([False, True, False, False, False])
    return outcome(module, [x, y], module(x, y, y, key_padding_mask=mask))


@script
def attention_in_evaluation(torch):
    module = torch.nn.MultiheadAttention(6, 2, dropout=0.5, batch_first=True).eval()
    x = numbers(torch, 2, 5, 6)
    with torch.no_grad():
        return [module(x, x, x), module(x, x, x, key_padding_mask=padding(torch))]


@script
def attention_as_a_function(torch):
    q, k = numbers(torch, 3, 2, 4), numbers(torch, 5, 2, 4)
    weights = [numbers(torch, 4, 4) * (i + 1) for i in range(4)]
    return torch.nn.functional.multi_head_attention_forward(
        q, k, k, 4, 2, None, numbers(torch, 12), None, None, False, 0.0, weights[3], None,
        use_separate_proj_weight=True, q_proj_weight=weights[0], k_proj_weight=weights[1],
        v_proj_weight=weights[2], static_k=numbers(torch, 4, 6, 2),
        static_v=numbers(torch, 4, 6, 2),
    )  # fmt: skip


LAYERS = {
    "plain": {},
    "gelu": {"activation": "gelu"},
    "norm_first": {"norm_first": True, "batch_first": True},
    "no_bias": {"bias": False, "layer_norm_eps": 1e-3},
    "no_dropout": {"dropout": 0.0},
}


def encode(torch, options):
    layer = torch.nn.TransformerEncoderLayer(6, 2, 7, **options)
    x = numbers(torch, 5, 5, 6).requires_grad_()
    mask = torch.nn.Transformer.generate_square_subsequent_mask(5)
    hide = torch.zeros(5, 5)
    hide[1, 3:] = -float("inf")
    return outcome(layer, [x], [layer(x, mask, hide)])


def decode(torch, options):
    layer = torch.nn.TransformerDecoderLayer(6, 2, 7, **options)
    x, y = numbers(torch, 4, 4, 6).requires_grad_(), numbers(torch, 4, 4, 6).requires_grad_()
    mask = torch.nn.Transformer.generate_square_subsequent_mask(4)
    return outcome(layer, [x, y], [layer(x, y, mask, tgt_is_causal=True)])


for _name, _options in LAYERS.items():
    ALL[f"encoder_layer_{_name}"] = lambda torch, o=_options: encode(torch, o)
    ALL[f"decoder_layer_{_name}"] = lambda torch, o=_options: decode(torch, o)


@script
def whole_transformer(torch):
    model = torch.nn.Transformer(6, 2, 2, 2, 7, dropout=0.1, batch_first=True)
    source, target = numbers(torch, 2, 5, 6), numbers(torch, 2, 3, 6)
    mask = model.generate_square_subsequent_mask(3)
    result = model(source, target, tgt_mask=mask, tgt_is_causal=True)
    starts = [p.double().abs().sum().item() for p in model.parameters()]
    return [result, list(model.state_dict()), starts, outcome(model, [], [result])[2]]


@script
def encoder_leaves_out_padding(torch):
    layer = torch.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 2, torch.nn.LayerNorm(4)).eval()
    x = numbers(torch, 2, 4, 4)
    ends = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1]]).bool()
    found = [encoder(x, src_key_padding_mask=ends)]
    with torch.no_grad():
        found.append(encoder(x, src_key_padding_mask=ends))
        found.append(encoder(x, src_key_padding_mask=ends.flip(1)))
    return found


@script
def texts(torch):
    nn = torch.nn
    modules = [
        nn.MultiheadAttention(4, 2, kdim=3, bias=False),
        nn.TransformerEncoderLayer(4, 2, activation=nn.GELU()),
        nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 8), 2, nn.LayerNorm(4)),
        nn.Transformer(4, 2, 1, 1, 8, batch_first=True),
    ]
    return [[repr(m), {k: list(v.shape) for k, v in m.state_dict().items()}] for m in modules]


@script
def starting_values(torch):
    nn = torch.nn
    made = [
        nn.MultiheadAttention(6, 2, add_bias_kv=True),
        nn.MultiheadAttention(6, 2, kdim=3, vdim=5),
        nn.TransformerEncoderLayer(6, 2, 7),
        nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 7, batch_first=True), 2),
        nn.Transformer(6, 2, 1, 1, 7, batch_first=True),
    ]
    return [[p.reshape(-1)[:5] for p in m.parameters()] for m in made] + [torch.rand(2)]


@script
def backends(torch):
    ways = torch.nn.attention
    flash, math = ways.SDPBackend.FLASH_ATTENTION, ways.SDPBackend.MATH
    q = numbers(torch, 1, 2, 3, 4).requires_grad_()

    def nodes():
        return type(torch.nn.functional.scaled_dot_product_attention(q, q, q).grad_fn).__name__

    flags = torch.backends.cuda
    found = [nodes() == "ScaledDotProductFlashAttentionForCpuBackward0"]
    with ways.sdpa_kernel(math):
        inside = [flags.flash_sdp_enabled(), flags.math_sdp_enabled()]
        found += [nodes() == "ScaledDotProductFlashAttentionForCpuBackward0", inside]
    with ways.sdpa_kernel([flash, math]):
        found.append(flags.mem_efficient_sdp_enabled())
    flags.enable_math_sdp(False)
    found += [flags.math_sdp_enabled(), str(flash), flash.name, int(math)]
    flags.enable_math_sdp(True)
    return found


@script
def causal_biases(torch):
    import importlib

    bias = importlib.import_module(f"{torch.__name__}.nn.attention.bias")
    attention = torch.nn.functional.scaled_dot_product_attention
    q, k = numbers(torch, 1, 2, 3, 4), numbers(torch, 1, 2, 5, 4)
    found = []
    for make in (bias.causal_lower_right, bias.causal_upper_left):
        mask = make(3, 5)
        found += [attention(q, k, k, attn_mask=mask), mask.variant.name, mask.seq_len_kv]
    return found


ERRORS = [
    "nn.MultiheadAttention(0, 1)",
    "nn.MultiheadAttention(5, 2)",
    "nn.TransformerEncoderLayer(4, 2, activation='tanh')",
    "nn.TransformerDecoderLayer(4, 2, activation='tanh')",
    "nn.Transformer(4, 2, 1, 1, 8)(torch.ones(3, 2, 4), torch.ones(3, 3, 4))",
    "nn.Transformer(4, 2, 1, 1, 8)(torch.ones(3, 2, 5), torch.ones(3, 2, 4))",
    "nn.TransformerEncoderLayer(4, 2)(torch.ones(3))",
    *(
        f"nn.MultiheadAttention(4, 2)({operands})"
        for operands in (
            "torch.ones(1, 3, 2, 4), torch.ones(3, 2, 4), torch.ones(3, 2, 4)",
            "torch.ones(3, 4), torch.ones(3, 2, 4), torch.ones(3, 2, 4)",
            "torch.ones(3, 2, 4), torch.ones(3, 4), torch.ones(3, 2, 4)",
            "torch.ones(3, 2, 5), torch.ones(3, 2, 4), torch.ones(3, 2, 4)",
            "torch.ones(3, 2, 4), torch.ones(4, 2, 4), torch.ones(3, 2, 4)",
            "torch.ones(3, 2, 4), torch.ones(3, 2, 3), torch.ones(3, 2, 3)",
            "*[torch.ones(3, 2, 4)] * 3, is_causal=True",
            *(
                f"*[torch.ones(3, 2, 4)] * 3, key_padding_mask=torch.ones({mask})"
                for mask in ("2, 3, 1, dtype=torch.bool", "2, 3, dtype=torch.int64")
            ),
            *(
                f"*[torch.ones(3, 2, 4)] * 3, attn_mask=torch.ones({mask})"
                for mask in ("3", "3, 4", "2, 3, 3", "2, 3, 3, 3", "3, 3, dtype=torch.int64")
            ),
            "*[torch.ones(3, 4)] * 3, attn_mask=torch.ones(3, 3, 3)",
            "*[torch.ones(3, 4)] * 3, key_padding_mask=torch.ones(2, 3, dtype=torch.bool)",
        )
    ),
    "nn.MultiheadAttention(4, 2, kdim=3, vdim=3)"
    "(torch.ones(3, 2, 4), torch.ones(4, 2, 3), torch.ones(5, 2, 3))",
    "nn.MultiheadAttention(4, 2, kdim=3, vdim=3)"
    "(torch.ones(3, 2, 4), torch.ones(4, 2, 4), torch.ones(4, 2, 4))",
    "nn.attention.sdpa_kernel('x').__enter__()",
]

WARNINGS = [
    *(
        f"nn.TransformerEncoder(nn.TransformerEncoderLayer(4, {rest}), 1)"
        for rest in (
            "2",
            "2, batch_first=True",
            "2, batch_first=True, norm_first=True",
            "2, batch_first=True, bias=False",
            "2, batch_first=True, activation=torch.tanh",
            "1, batch_first=True",
        )
    ),
    "nn.TransformerEncoder(nn.Linear(2, 2), 1)",
    "nn.MultiheadAttention(4, 2)(*[torch.ones(3, 2, 4)] * 3, attn_mask=torch.ones(3, 3), "
    "key_padding_mask=torch.zeros(2, 3, dtype=torch.bool))",
    "nn.TransformerEncoderLayer(4, 2)(torch.ones(3, 2, 4), torch.ones(3, 3), "
    "torch.zeros(2, 3, dtype=torch.bool))",
]
