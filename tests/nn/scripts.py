"""Small programs over ``torch`` whose results are recorded: hooks, states, copies, containers."""

import copy
import io
import pickle
import warnings
from collections import OrderedDict

ALL = {}


def script(function):
    ALL[function.__name__] = function
    return function


def describe(torch, name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.manual_seed(0)
        result = ALL[name](torch)
    texts = [str(w.message) for w in caught]
    return {"result": as_json(result), "warnings": [t for t in texts if "hook" in t]}


def as_json(value):
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if hasattr(value, "tolist"):
        return as_json(value.tolist())
    return str(value)


def doubling(torch):
    """A module that computes ``factor * x``, with keyword arguments."""

    class Doubling(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, x, *, shift=0):
            if shift is None:
                raise ValueError("no shift")
            return self.weight * x + shift

    return Doubling()


@script
def forward_hooks_in_order(torch):
    log = []
    net = doubling(torch)
    net.register_forward_hook(lambda m, a, o: log.append(("first", o.item())))
    net.register_forward_hook(lambda m, a, o: o + 1)
    net.register_forward_hook(lambda m, a, o: log.append(("last", o.item())))
    net.register_forward_hook(lambda m, a, o: log.append("before all"), prepend=True)
    handle = net.register_forward_hook(lambda m, a, k, o: log.append(k), with_kwargs=True)
    first = net(torch.tensor(3.0), shift=5).item()
    handle.remove()
    handle.remove()
    return [first, net(torch.tensor(3.0)).item(), log, len(net._forward_hooks_with_kwargs)]


@script
def forward_pre_hooks(torch):
    log = []
    net = doubling(torch)
    net.register_forward_pre_hook(lambda m, a: a[0] + 1)
    net.register_forward_pre_hook(lambda m, a: (a[0] * 10,))
    net.register_forward_pre_hook(lambda m, a, k: log.append((a[0].item(), k)), with_kwargs=True)
    net.register_forward_pre_hook(lambda m, a, k: (a, {"shift": 7}), with_kwargs=True)
    value = net(torch.tensor(3.0)).item()
    net.register_forward_pre_hook(lambda m, a, k: 5, with_kwargs=True)
    try:
        net(torch.tensor(3.0))
    except RuntimeError as error:
        log.append(str(error))
    return [value, log]


@script
def always_called_hooks(torch):
    log = []
    net = doubling(torch)
    net.register_forward_hook(lambda m, a, o: log.append("plain"))
    net.register_forward_hook(lambda m, a, o: log.append(("always", o)), always_call=True)

    def raising(module, args, kwargs, output):
        log.append(("raising", kwargs))
        raise RuntimeError("from the hook")

    net.register_forward_hook(raising, always_call=True, with_kwargs=True)
    for shift in (None, 1):
        try:
            net(torch.tensor(1.0), shift=shift)
        except (ValueError, RuntimeError) as error:
            log.append(str(error))
    return [entry if not isinstance(entry, tuple) else as_json(entry) for entry in log]


@script
def global_forward_hooks(torch):
    from_module = torch.nn.modules.module
    log = []
    net = torch.nn.Sequential(doubling(torch))
    name = lambda m: type(m).__name__  # noqa: E731 - shorter
    handles = [
        from_module.register_module_forward_pre_hook(lambda m, a: log.append(("pre", name(m)))),
        from_module.register_module_forward_hook(lambda m, a, o: log.append(("post", name(m)))),
        from_module.register_module_forward_hook(
            lambda m, a, k, o: log.append(("kwargs", name(m), k)), with_kwargs=True
        ),
    ]
    net[0].register_forward_hook(lambda m, a, o: log.append("own"))
    net(torch.tensor(1.0))
    for handle in handles:
        handle.remove()
    net(torch.tensor(1.0))
    return log


@script
def full_backward_hooks(torch):
    log = []
    net = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(3.0)
    net.register_full_backward_pre_hook(lambda m, g: log.append(("pre", g[0].tolist())))
    net.register_full_backward_pre_hook(lambda m, g: (g[0] * 2,))
    net.register_full_backward_hook(lambda m, gi, go: log.append((gi[0].tolist(), go[0].tolist())))
    net.register_full_backward_hook(lambda m, gi, go: (gi[0] + 100,))
    x = torch.ones(1, 2, requires_grad=True)
    net(x).sum().backward()
    return [log, x.grad, net.weight.grad]


@script
def full_backward_hook_without_input_gradient(torch):
    log = []
    net = torch.nn.Linear(2, 1, bias=False)
    net.register_full_backward_hook(lambda m, gi, go: log.append((gi, go[0].tolist())))
    net(torch.ones(1, 2)).sum().backward()
    return [log, net.weight.grad]


@script
def full_backward_hook_with_several_tensors(torch):
    log = []

    class Pair(torch.nn.Module):
        def forward(self, a, number, b):
            return a * number, b * 2

    net = Pair()
    net.register_full_backward_hook(
        lambda m, gi, go: log.append(
            [[None if g is None else g.tolist() for g in grads] for grads in (gi, go)]
        )
    )
    a = torch.tensor([1.0], requires_grad=True)
    b = torch.tensor([2.0], requires_grad=True)
    first, second = net(a, 5, b)
    (first + second * 3).sum().backward()
    return [log, a.grad, b.grad]


@script
def old_backward_hook(torch):
    log = []
    net = torch.nn.ReLU()
    net.register_backward_hook(
        lambda m, gi, go: log.append([type(m).__name__, gi[0].tolist(), go[0].tolist()])
    )
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    net(x).sum().backward()
    try:
        net.register_full_backward_hook(lambda m, gi, go: None)
    except RuntimeError as error:
        log.append(str(error))
    return [log, x.grad]


@script
def global_backward_hooks(torch):
    from_module = torch.nn.modules.module
    log = []
    net = torch.nn.Linear(2, 1)
    x = torch.ones(1, 2, requires_grad=True)
    handle = from_module.register_module_full_backward_hook(
        lambda m, gi, go: log.append([type(m).__name__, go[0].tolist()])
    )
    pre = from_module.register_module_full_backward_pre_hook(lambda m, go: log.append("pre"))
    net(x).sum().backward()
    try:
        from_module.register_module_backward_hook(lambda m, gi, go: None)
    except RuntimeError as error:
        log.append(str(error))
    handle.remove()
    pre.remove()
    net(x).sum().backward()
    return log


@script
def registration_hooks(torch):
    from_module = torch.nn.modules.module
    log = []
    handles = [
        from_module.register_module_parameter_registration_hook(
            lambda m, name, p: log.append(("parameter", name))
        ),
        from_module.register_module_buffer_registration_hook(
            lambda m, name, b: log.append(("buffer", name))
        ),
        from_module.register_module_module_registration_hook(
            lambda m, name, s: log.append(("module", name))
        ),
    ]
    torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2, bias=False))
    for handle in handles:
        handle.remove()
    torch.nn.Linear(2, 2)
    return log


@script
def state_dict_hooks(torch):
    log = []
    net = torch.nn.Sequential(torch.nn.Linear(1, 1))
    net.register_state_dict_pre_hook(lambda m, prefix, keep: log.append(("pre", prefix, keep)))
    net[0].register_state_dict_post_hook(
        lambda m, state, prefix, metadata: log.append((list(state), prefix, metadata))
    )
    net._register_state_dict_hook(lambda m, state, prefix, metadata: {"only": 1})
    log.append(net.state_dict(prefix="a."))

    def returning(module, state, prefix, metadata):
        return state

    net[0].register_state_dict_post_hook(returning)
    for attempt in (net.state_dict, lambda: net._register_state_dict_hook(returning)):
        try:
            attempt()
        except RuntimeError as error:
            log.append(str(error))
    return log


@script
def load_state_dict_hooks(torch):
    log = []
    net = torch.nn.Sequential(torch.nn.Linear(1, 1))

    def rename(module, state, prefix, metadata, strict, missing, unexpected, errors):
        log.append((type(module).__name__, list(state), prefix, metadata, strict))
        if prefix + "w" in state:
            state[prefix + "weight"] = state.pop(prefix + "w")

    net[0].register_load_state_dict_pre_hook(rename)
    net.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
    result = net.load_state_dict({"0.w": torch.full((1, 1), 4.0)})
    log.append([list(result.missing_keys), list(result.unexpected_keys)])
    log.append(net[0].weight.item())
    net.register_load_state_dict_post_hook(lambda m, keys: 3)
    try:
        net.load_state_dict(net.state_dict())
    except AssertionError as error:
        log.append(str(error))
    return log


@script
def extra_state(torch):
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.count = 0

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    net = torch.nn.Sequential(Counting())
    net[0].count = 5
    state = net.state_dict()
    other = torch.nn.Sequential(Counting())
    other.load_state_dict(state)
    try:
        other.load_state_dict({})
    except RuntimeError as error:
        return [state, other[0].count, str(error)]


@script
def assigning_a_state_dict(torch):
    net = torch.nn.BatchNorm1d(2)
    net.weight.requires_grad_(False)
    state = {key: value.double() for key, value in net.state_dict().items()}
    state["weight"] = torch.nn.Parameter(state["weight"])
    net.load_state_dict(state, assign=True)
    return [
        net.weight is state["weight"],
        net.weight.requires_grad,
        net.bias.requires_grad,
        type(net.bias).__name__,
        net.bias.dtype,
        net.running_mean is state["running_mean"],
    ]


@script
def state_dict_shares_memory(torch):
    net = torch.nn.Linear(1, 1)
    state = net.state_dict()
    with torch.no_grad():
        net.weight.fill_(9.0)
    kept = net.state_dict(keep_vars=True)
    return [
        state["weight"].item(),
        state["weight"].requires_grad,
        kept["weight"] is net.weight,
        state._metadata,
        type(state) is OrderedDict,
    ]


@script
def batch_norm_files_without_a_counter(torch):
    net = torch.nn.BatchNorm1d(2)
    state = dict(net.state_dict())
    del state["num_batches_tracked"]
    result = str(net.load_state_dict(state))
    versioned = OrderedDict(state)
    versioned._metadata = {"": {"version": 2}}
    try:
        net.load_state_dict(versioned)
    except RuntimeError as error:
        return [result, str(error)]


@script
def buffers(torch):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("kept", torch.ones(1))
            self.register_buffer("lost", torch.ones(1), persistent=False)
            self.register_buffer("none", None)
            self.marked = torch.nn.Buffer(torch.ones(2), persistent=False)

    net = Net()
    net.kept = torch.zeros(1)
    net.lost = torch.zeros(1)
    net.none = torch.zeros(1)
    first = [list(net.state_dict()), [n for n, _ in net.named_buffers()]]
    del net.lost
    net.lost = 3
    net.kept = torch.nn.Parameter(torch.ones(1))
    second = [list(net.state_dict()), [n for n, _ in net.named_buffers()], net.lost]
    return [*first, *second, sorted(net._non_persistent_buffers_set)]


@script
def attributes_move_between_kinds(torch):
    nn = torch.nn
    net = nn.Module()
    net.a = 3
    net.a = nn.Parameter(torch.ones(1))
    kinds = ["a" in net.__dict__, "a" in net._parameters]
    net.a = None
    kinds.append("a" in net._parameters)
    del net.a
    net.a = 5
    net.a = nn.ReLU()
    kinds += ["a" in net._parameters, "a" in net._modules]
    net.a = None
    kinds += ["a" in net._modules, net.a]
    del net.a
    kinds.append(hasattr(net, "a"))
    net.b = torch.ones(1)
    kinds.append("b" in net.__dict__)
    return kinds


@script
def shared_modules_appear_once(torch):
    nn = torch.nn
    layer = nn.Linear(1, 1)
    net = nn.Sequential(layer, nn.ReLU(), layer)
    net.register_module("none", None)
    return [
        [name for name, _ in net.named_modules()],
        [name for name, _ in net.named_modules(remove_duplicate=False)],
        [name for name, _ in net.named_children()],
        [name for name, _ in net.named_parameters()],
        [name for name, _ in net.named_parameters(remove_duplicate=False)],
        [name for name, _ in net.named_parameters("top", recurse=False)],
        list(net.state_dict()),
        len(list(net.modules())),
        repr(net),
    ]


@script
def copies(torch):
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    log = []
    net[0].register_forward_hook(keep_output)
    net.note = [1]
    twin = copy.deepcopy(net)
    twin[0].weight.data.zero_()
    twin.note.append(2)
    log.append([net[0].weight.abs().sum().item() > 0, net.note, twin.note])
    log.append([type(twin[0].weight).__name__, twin[0].weight.requires_grad])
    log.append(len(twin[0]._forward_hooks))
    twin(torch.ones(2, 2))
    log.append([hasattr(twin[0], "seen"), hasattr(net[0], "seen")])
    shallow = copy.copy(net)
    log.append([shallow[0] is net[0], shallow._modules is net._modules])
    return log


def keep_output(module, args, output):
    module.seen = output.detach()


@script
def pickles(torch):
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.2)).eval()
    net[0].weight.requires_grad_(False)
    other = pickle.loads(pickle.dumps(net))
    with io.BytesIO() as file:
        torch.save(net.state_dict(), file)
        file.seek(0)
        state = torch.load(file)
    net.load_state_dict(state)
    x = torch.ones(1, 2)
    return [
        repr(other),
        torch.equal(net(x), other(x)),
        other.training,
        other[0].weight.requires_grad,
        other[0].bias.requires_grad,
        type(other[0].bias).__name__,
    ]


@script
def conversions_keep_the_parameters(torch):
    net = torch.nn.Linear(2, 2)
    weight = net.weight
    net(torch.ones(1, 2)).sum().backward()
    net.double()
    log = [net.weight is weight, weight.dtype, weight.grad.dtype, weight.is_leaf]
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    optimizer.step()
    net.zero_grad(set_to_none=False)
    log += [weight.grad, net.to(torch.float32) is net, weight.dtype]
    net.zero_grad()
    log.append(weight.grad)
    net.type(torch.float64).float()
    log.append(net.bias.dtype)
    return log


@script
def applying(torch):
    nn = torch.nn
    log = []

    def visit(module):
        log.append(type(module).__name__)
        if type(module) is nn.Linear:
            nn.init.constant_(module.weight, 0.5)

    net = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU()))
    same = net.apply(visit) is net
    return [log, same, net[0].weight.item()]


@script
def sequential_as_a_list(torch):
    nn = torch.nn
    names = lambda s: [[k, type(m).__name__] for k, m in s._modules.items()]  # noqa: E731
    net = nn.Sequential(OrderedDict([("first", nn.ReLU()), ("second", nn.Tanh())]))
    log = [names(net), names(net[:1]), type(net[-1]).__name__]
    net[1] = nn.SiLU()
    log.append(names(net))
    del net[0]
    log.append(names(net))
    net.append(nn.ReLU()).extend([nn.Tanh(), nn.GELU()]).insert(1, nn.ELU()).insert(-1, nn.CELU())
    log.append(names(net))
    del net[1:3]
    log += [names(net), type(net.pop(0)).__name__, names(net)]
    net += nn.Sequential(nn.Mish())
    net *= 2
    log += [names(net), names(net + net[:1]), names(2 * net[:1]), len(net)]
    return log


@script
def module_list_as_a_list(torch):
    nn = torch.nn
    names = lambda s: [[k, type(m).__name__] for k, m in s._modules.items()]  # noqa: E731
    net = nn.ModuleList([nn.ReLU(), nn.Tanh()])
    net.append(nn.SiLU()).extend([nn.GELU()])
    net += [nn.ELU()]
    net.insert(1, nn.CELU())
    log = [names(net), names(net[1:3]), type(net[-1]).__name__, names(net + [nn.Mish()])]
    net[0] = nn.Sigmoid()
    del net[1]
    log += [type(net.pop(-1)).__name__, names(net)]
    del net[:2]
    return [*log, names(net), [type(m).__name__ for m in net], len(net)]


@script
def module_dict_as_a_dict(torch):
    nn = torch.nn
    net = nn.ModuleDict({"b": nn.ReLU(), "a": nn.Tanh()})
    net["c"] = nn.GELU()
    net.update(nn.ModuleDict({"a": nn.ELU()}))
    log = [list(net), [type(m).__name__ for m in net.values()], "b" in net, len(net)]
    log += [type(net.pop("b")).__name__, list(net.keys())]
    del net["a"]
    log.append([k for k, _ in net.items()])
    net.clear()
    return [*log, len(net)]


@script
def parameter_containers(torch):
    nn = torch.nn
    items = nn.ParameterList([torch.ones(1), nn.Parameter(torch.zeros(2)), "x"])
    items[0] = torch.full((2,), 3.0)
    items += [torch.ones(3)]
    log = [len(items), [n for n, _ in items.named_parameters()], list(items.state_dict())]
    table = nn.ParameterDict({"b": torch.ones(1), "a": torch.zeros(2), "n": 4})
    table["z"] = torch.ones(1)
    log += [list(table), [n for n, _ in table.named_parameters()], table.get("q", 3)]
    log += [table.setdefault("s", 5), table.pop("n"), "n" in table, list(reversed(table))]
    log += [list(table.copy().keys()), list(table.fromkeys(["u", "v"], 1).items())]
    table |= nn.ParameterDict({"w": 1})
    log += [list(table), len(table)]
    table.clear()
    return [*log, len(table), type(items[0]).__name__]


@script
def gradient_clipping(torch):
    utils = torch.nn.utils
    net = torch.nn.Linear(2, 2)
    log = []
    for norm_type in (2.0, 1, float("inf")):
        for parameter in net.parameters():
            parameter.grad = torch.full_like(parameter, 3.0)
        log.append(utils.clip_grad_norm_(net.parameters(), 1.0, norm_type).item())
        log.append(net.bias.grad)
    log.append(utils.clip_grad_norm_(net.weight, 1e6).item())
    log.append(utils.clip_grad_norm_([], 1.0).item())
    net.bias.grad.fill_(5.0)
    utils.clip_grad_value_(net.parameters(), 0.25)
    log += [net.bias.grad, utils.get_total_norm([net.bias.grad]).item()]
    vector = torch.arange(6.0)
    utils.vector_to_parameters(vector, net.parameters())
    vector[0] = 7.0
    return [*log, net.weight, net.bias]


@script
def instance_forward_and_call(torch):
    net = torch.nn.ReLU()
    net.forward = lambda x: x + 1

    class Calling(torch.nn.Module):
        def __call__(self, x):
            return super().__call__(x) * 2

        def forward(self, x):
            return x + 1

    return [net(torch.tensor(1.0)).item(), Calling()(torch.tensor(1.0)).item()]


@script
def cooperative_init(torch):
    class Mixin:
        def __init__(self, extra=0):
            self.extra = extra

    class Net(torch.nn.Module, Mixin):
        call_super_init = True

        def __init__(self):
            super().__init__(extra=4)

    return [Net().extra]


@script
def recomputed_weight(torch):
    """Libraries delete a parameter and set a plain tensor of its name."""
    net = torch.nn.Linear(2, 1, bias=False)
    doubled = net.weight.detach() * 0 + 2
    del net.weight
    net.weight = doubled
    return [net(torch.ones(1, 2)).item(), repr(net)]


@script
def training_a_network(torch):
    nn = torch.nn
    net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x = torch.randn(32, 4)
    y = torch.randint(0, 3, (32,))
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        losses.append(round(loss.item(), 4))
    return losses
