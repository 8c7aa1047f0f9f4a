"""Forward results and gradients of modules and functions, on fixed inputs.

Each case is an expression; its tensors named in ``LEAVES`` and the module's parameters get
gradients of ``(result * fixed numbers).sum()``.
"""

import numpy as np

try:
    from tests.nn import cases
except ImportError:  # the recorder has only this folder on its path
    import cases

# "module expression": what it is called with.
CALLS = {
    "nn.Identity()": "x2",
    "nn.Linear(6, 3)": "x2",
    "nn.Linear(9, 3, bias=False)": "x3",
    "nn.Bilinear(6, 6, 2)": "x2, y2",
    "nn.Flatten()": "x3",
    "nn.Unflatten(1, (2, 2))": "x3",
    "nn.Conv1d(4, 6, 3)": "x3",
    "nn.Conv1d(4, 6, 3, padding='same', dilation=2)": "x3",
    "nn.Conv1d(4, 2, 4, stride=2, padding=2, padding_mode='replicate')": "x3",
    "nn.Conv2d(4, 6, 3)": "x4",
    "nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2), groups=2, bias=False)": "x4",
    "nn.Conv2d(4, 6, 3, padding='same', padding_mode='reflect')": "x4",
    "nn.Conv2d(4, 6, (2, 3), padding='valid', dilation=2, padding_mode='circular')": "x4",
    "nn.Conv2d(4, 6, 4, padding='same')": "x4",
    "nn.Conv2d(4, 6, 3, padding=1, padding_mode='circular')": "x4[0]",
    "nn.Conv3d(4, 2, (1, 3, 2), padding=(1, 0, 1), stride=(2, 1, 1))": "x5",
    "nn.Conv3d(4, 4, 2, padding='same', groups=2, padding_mode='circular')": "x5",
    "nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1)": "x3",
    "nn.ConvTranspose2d(4, 6, (3, 2), padding=1, groups=2, bias=False)": "x4",
    "nn.ConvTranspose2d(4, 2, 3, stride=2)": "x4, output_size=(2, 2, 20, 17)",
    "nn.ConvTranspose3d(4, 2, 2, stride=(2, 1, 2), padding=1)": "x5",
    "nn.MaxPool3d((1, 2, 2), stride=1)": "x5",
    "nn.AvgPool3d(2, padding=1, count_include_pad=False, ceil_mode=True)": "x5",
    "nn.AdaptiveAvgPool3d((3, None, 2))": "x5",
    "nn.AdaptiveMaxPool3d(2)": "x5",
    "nn.LPPool1d(2, 3)": "x3",
    "nn.LPPool2d(2, (3, 2), stride=(2, 1))": "x4",
    "nn.LPPool3d(2, 2, ceil_mode=True)": "x5",
    "nn.MaxUnpool2d(2)": "*F.max_pool2d(x4, 2, return_indices=True)",
    "nn.MaxUnpool1d(3)": "*F.max_pool1d(x3, 3, return_indices=True)",
    "nn.Unfold((2, 3), padding=1, dilation=(1, 2))": "x4",
    "nn.Fold((4, 3), 2)": "x3[:, :, :6]",
    "nn.ZeroPad2d((1, 2, 3, -1))": "x4",
    "nn.ConstantPad1d((1, 2), 3.5)": "x3",
    "nn.ReflectionPad2d((1, 1, 2, 0))": "x4",
    "nn.ReplicationPad3d(1)": "x5",
    "nn.CircularPad1d((1, 3))": "x3",
    "nn.MaxPool1d(3)": "x3",
    "nn.MaxPool2d(2)": "x4",
    "nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0), ceil_mode=True)": "x4",
    "nn.MaxPool2d(2, dilation=2)": "x4[0]",
    "nn.AvgPool1d(3, 2, 1)": "x3",
    "nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)": "x4",
    "nn.AvgPool2d(2, divisor_override=3, ceil_mode=True)": "x4",
    "nn.AdaptiveAvgPool1d(5)": "x3",
    "nn.AdaptiveAvgPool2d((5, None))": "x4",
    "nn.AdaptiveMaxPool1d(5)": "x3",
    "nn.AdaptiveMaxPool2d(7)": "x4",
    "nn.BatchNorm1d(6)": "x2",
    "nn.BatchNorm1d(4)": "x3",
    "nn.BatchNorm1d(6).eval()": "x2",
    "nn.BatchNorm2d(4, momentum=None, affine=False)": "x4",
    "nn.BatchNorm2d(4, bias=False)": "x4",
    "nn.BatchNorm3d(4, track_running_stats=False)": "x5",
    "nn.LayerNorm(6)": "x2",
    "nn.LayerNorm([4, 9], elementwise_affine=False)": "x3",
    "nn.LayerNorm((4, 9), bias=False, eps=1e-3)": "x3",
    "nn.GroupNorm(2, 4)": "x4",
    "nn.GroupNorm(4, 4, affine=False)": "x3",
    "nn.RMSNorm(6)": "x2",
    "nn.RMSNorm([4, 9], eps=1e-4, elementwise_affine=False)": "x3",
    "nn.Embedding(10, 3)": "ids",
    "nn.Embedding(10, 3, padding_idx=3)": "ids",
    "nn.Embedding(10, 3, max_norm=1.0)": "ids",
    "nn.Embedding(10, 3, scale_grad_by_freq=True)": "ids",
    "nn.Dropout(0.4)": "x4",
    "nn.Dropout(0.4).eval()": "x4",
    "nn.Dropout1d(0.4)": "x3",
    "nn.Dropout1d(0.4).train()": "x2",
    "nn.Dropout2d(0.4)": "x4",
    "nn.Dropout3d(0.4)": "x5",
    "nn.AlphaDropout(0.3)": "x3",
    "nn.ReLU()": "x3",
    "nn.ReLU6()": "x3 * 5",
    "nn.LeakyReLU(0.2)": "x3",
    "nn.PReLU()": "x3",
    "nn.PReLU(4, 0.1)": "x3",
    "nn.RReLU().eval()": "x3",
    "nn.ELU(0.5)": "x3",
    "nn.SELU()": "x3",
    "nn.CELU(2.0)": "x3",
    "nn.GELU()": "x3",
    "nn.GELU('tanh')": "x3",
    "nn.SiLU()": "x3",
    "nn.Mish()": "x3",
    "nn.Sigmoid()": "x3",
    "nn.LogSigmoid()": "x3",
    "nn.Tanh()": "x3",
    "nn.Tanhshrink()": "x3",
    "nn.Softplus()": "x3",
    "nn.Softplus(2.0, 1.0)": "x3",
    "nn.Softsign()": "x3",
    "nn.Hardtanh(-0.5, 0.7)": "x3",
    "nn.Hardsigmoid()": "x3 * 3",
    "nn.Hardswish()": "x3 * 3",
    "nn.Softmax(dim=1)": "x3",
    "nn.LogSoftmax(dim=-1)": "x3",
    "nn.Softmin(dim=0)": "x3",
    "nn.Softmax2d()": "x4",
    "nn.Threshold(0.1, 20)": "x3",
    "nn.GLU(1)": "x3",
    "nn.Hardshrink()": "x3",
    "nn.Softshrink(0.3)": "x3",
    "nn.CrossEntropyLoss()": "x2, classes",
    "nn.CrossEntropyLoss(w.abs(), ignore_index=2, label_smoothing=0.1)": "x2, classes",
    "nn.CrossEntropyLoss(reduction='none')": "x3, torch.tensor([[1, 2, 3] * 3, [0, 0, 1] * 3])",
    "nn.CrossEntropyLoss(label_smoothing=0.2)": "x2, y2.softmax(1)",
    "nn.NLLLoss(w.abs(), reduction='sum')": "x2, classes",
    "nn.NLLLoss()": "x3, torch.tensor([[1, 2, 3] * 3, [0, 0, 1] * 3])",
    "nn.MSELoss()": "x2, y2",
    "nn.MSELoss(reduction='sum')": "x2, y2",
    "nn.L1Loss()": "x2, y2",
    "nn.L1Loss(reduction='none')": "x2, y2",
    "nn.SmoothL1Loss(beta=0.5)": "x2, y2",
    "nn.SmoothL1Loss(beta=0.0)": "x2, y2",
    "nn.HuberLoss(delta=2.0)": "x2, y2",
    "nn.BCELoss(w.abs())": "p2, y2.sigmoid()",
    "nn.BCEWithLogitsLoss()": "x2, y2.sigmoid()",
    "nn.BCEWithLogitsLoss(weight=w.abs(), pos_weight=w.abs() + 1)": "x2, y2.sigmoid()",
    "nn.KLDivLoss(reduction='batchmean')": "x2, y2.softmax(1)",
    "nn.KLDivLoss(reduction='sum', log_target=True)": "x2, y2",
    "nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))": "x2",
}

FUNCTIONS = [
    "F.pad(x3, (1, 2))",
    "F.pad(x3, (1, -2, 3, 0), value=0.5)",
    "F.pad(x3, (2, 1), mode='reflect')",
    "F.pad(x4, (2, 1, 0, 3), mode='replicate')",
    "F.pad(x4, (2, 1, 1, 3), mode='circular')",
    "F.normalize(x3)",
    "F.normalize(x3, p=1, dim=2)",
    "F.relu(x3)",
    "F.elu(x3.clone(), inplace=True)",
    "F.hardtanh(x3.clone(), inplace=True)",
    "F.leaky_relu(x3.clone(), 0.3, inplace=True)",
    "F.threshold(x3, 0.2, 0.1)",
    "F.softmax(x2, 1, dtype=torch.float64)",
    "F.log_softmax(x2, -1)",
    "F.gumbel_softmax(x2, hard=True)",
    "F.gumbel_softmax(x2, tau=0.5)",
    "F.mse_loss(x2, y2, weight=p2)",
    "F.l1_loss(x2, y2, weight=p2)",
    "F.huber_loss(x2, y2, weight=p2)",
    "F.max_pool2d(x4, 2, return_indices=True)[0]",
    "F.max_pool2d(x4, 2, return_indices=True)[1]",
    "F.adaptive_max_pool1d(x3, 4, return_indices=True)[1]",
    "F.conv2d(x4, x4[:, :, :3, :3].contiguous(), padding=1)",
    "F.linear(x2, y2, w[:5])",
    "F.embedding(ids, x3.reshape(12, 6))",
    "F.layer_norm(x3, (9,))",
    "F.batch_norm(x2, None, None, training=True)",
    "nn.utils.parameters_to_vector([x2, x3])",
]

ALL = [*CALLS, *FUNCTIONS]
LEAVES = ("x1", "x2", "x3", "x4", "x5", "p2", "y2")


def describe(torch, name):
    names = cases.namespace(torch)
    for leaf in LEAVES:
        names[leaf] = names[leaf].detach().requires_grad_()
    torch.manual_seed(0)
    module = None
    if name in CALLS:
        module = cases.quiet(name, names)
        result = cases.quiet(f"module({CALLS[name]})", {**names, "module": module})
    else:
        result = cases.quiet(name, names)
    found = {"result": as_list(result)}
    if result.requires_grad:
        numbers = np.random.RandomState(1).randn(*result.shape)
        (result * torch.from_numpy(np.asarray(numbers)).to(result.dtype)).sum().backward()
    for leaf in LEAVES:
        if names[leaf].grad is not None:
            found[leaf] = as_list(names[leaf].grad)
    if module is not None:
        for key, parameter in module.named_parameters():
            if parameter.grad is not None:
                found[key] = as_list(parameter.grad)
        for key, buffer in module.named_buffers():
            found[key] = as_list(buffer)
    return found


def as_list(tensor):
    """Shape, type, about 40 elements spread over the tensor, to 7 digits, and the sum."""
    flat = tensor.detach().reshape(-1).tolist()
    total = float(sum(flat))
    spread = flat[:: max(1, len(flat) // 40)]
    spread = [float(f"{value:.7g}") if isinstance(value, float) else value for value in spread]
    return {
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype),
        "values": spread,
        "sum": float(f"{total:.7g}"),
    }
