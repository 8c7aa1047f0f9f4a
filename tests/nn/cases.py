"""What is asked of nn, as expressions over ``torch``, ``nn``, ``F``, ``init`` and tensors.

The same tables are described by PyTorch (tools/record_nn.py) and by flambeau (the tests here).
"""

import re
import warnings

import numpy as np

MODULES = [
    "nn.Identity(3, foo=1)",
    "nn.Linear(4, 3)",
    "nn.Linear(4, 3, bias=False)",
    "nn.Bilinear(3, 4, 2)",
    "nn.Flatten()",
    "nn.Flatten(0, 1)",
    "nn.Unflatten(1, (2, 3))",
    "nn.Conv1d(4, 6, 3)",
    "nn.Conv1d(4, 6, 3, padding='same', dilation=2)",
    "nn.Conv2d(3, 6, 5)",
    "nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2), groups=2, bias=False)",
    "nn.Conv2d(4, 6, 3, padding='same', padding_mode='reflect')",
    "nn.Conv2d(4, 6, (2, 3), padding='valid', dilation=2, padding_mode='circular')",
    "nn.Conv3d(2, 4, 3, padding='same')",
    "nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1)",
    "nn.ConvTranspose2d(4, 6, (3, 2), padding=1, groups=2, bias=False)",
    "nn.ConvTranspose3d(2, 4, 3, dilation=2)",
    "nn.MaxPool3d((3, 2, 1), stride=2)",
    "nn.AvgPool3d(3, stride=2, padding=1, count_include_pad=False)",
    "nn.AdaptiveAvgPool3d((5, None, 2))",
    "nn.AdaptiveMaxPool3d(7)",
    "nn.FractionalMaxPool2d(2, output_ratio=0.5)",
    "nn.FractionalMaxPool3d(2, output_size=(2, 3, 4))",
    "nn.LPPool1d(1.2, 3)",
    "nn.LPPool2d(2, (3, 2), stride=(2, 1))",
    "nn.LPPool3d(2, 3, ceil_mode=True)",
    "nn.MaxUnpool1d(3)",
    "nn.MaxUnpool2d(2, stride=(2, 1))",
    "nn.MaxUnpool3d((3, 2, 2), padding=1)",
    "nn.Unfold((2, 3), padding=1)",
    "nn.Fold((4, 5), 2, stride=2)",
    "nn.ZeroPad1d(2)",
    "nn.ZeroPad2d((1, 2, 3, 4))",
    "nn.ZeroPad3d(1)",
    "nn.ConstantPad1d((1, 2), 3.5)",
    "nn.ConstantPad2d(1, 2)",
    "nn.ConstantPad3d(2, 0.5)",
    "nn.ReflectionPad1d(2)",
    "nn.ReflectionPad2d((1, 1, 2, 0))",
    "nn.ReflectionPad3d(1)",
    "nn.ReplicationPad1d((3, 1))",
    "nn.ReplicationPad2d(1)",
    "nn.ReplicationPad3d(2)",
    "nn.CircularPad1d((1, 3))",
    "nn.CircularPad2d(2)",
    "nn.CircularPad3d(1)",
    "nn.MaxPool1d(3)",
    "nn.MaxPool2d(2)",
    "nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0), ceil_mode=True)",
    "nn.AvgPool1d(3, 2, 1)",
    "nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)",
    "nn.AdaptiveAvgPool1d(5)",
    "nn.AdaptiveAvgPool2d((5, None))",
    "nn.AdaptiveMaxPool1d(5)",
    "nn.AdaptiveMaxPool2d(7)",
    "nn.BatchNorm1d(5)",
    "nn.BatchNorm2d(5, momentum=None, affine=False)",
    "nn.BatchNorm2d(5, bias=False)",
    "nn.BatchNorm3d(4, track_running_stats=False)",
    "nn.LayerNorm(6)",
    "nn.LayerNorm([3, 6], elementwise_affine=False)",
    "nn.LayerNorm((3, 6), bias=False, eps=1e-3)",
    "nn.GroupNorm(2, 6)",
    "nn.GroupNorm(3, 6, affine=False)",
    "nn.RMSNorm(6)",
    "nn.RMSNorm([3, 6], eps=1e-4, elementwise_affine=False)",
    "nn.Embedding(10, 3)",
    "nn.Embedding(10, 3, padding_idx=-1, max_norm=2.0, norm_type=1.0, scale_grad_by_freq=True)",
    "nn.Embedding(10, 3, sparse=True)",
    "nn.Dropout()",
    "nn.Dropout(0.2, inplace=True)",
    "nn.Dropout1d(0.1)",
    "nn.Dropout2d(0.1)",
    "nn.Dropout3d(0.1)",
    "nn.AlphaDropout(0.1)",
    "nn.FeatureAlphaDropout(0.1)",
    "nn.ReLU()",
    "nn.ReLU(inplace=True)",
    "nn.ReLU6()",
    "nn.ReLU6(True)",
    "nn.LeakyReLU()",
    "nn.LeakyReLU(0.2, True)",
    "nn.PReLU()",
    "nn.PReLU(3, 0.1)",
    "nn.RReLU()",
    "nn.RReLU(0.1, 0.2, True)",
    "nn.ELU()",
    "nn.ELU(0.5, True)",
    "nn.SELU()",
    "nn.CELU(2.0)",
    "nn.GELU()",
    "nn.GELU('tanh')",
    "nn.SiLU()",
    "nn.SiLU(True)",
    "nn.Mish(True)",
    "nn.Sigmoid()",
    "nn.LogSigmoid()",
    "nn.Tanh()",
    "nn.Tanhshrink()",
    "nn.Softplus()",
    "nn.Softplus(2.0, 10.0)",
    "nn.Softsign()",
    "nn.Hardtanh()",
    "nn.Hardtanh(-2, 2, True)",
    "nn.Hardsigmoid(True)",
    "nn.Hardswish(True)",
    "nn.Softmax(dim=1)",
    "nn.LogSoftmax(dim=-1)",
    "nn.Softmin(dim=0)",
    "nn.Softmax2d()",
    "nn.Threshold(0.1, 20)",
    "nn.Threshold(0.1, 20, True)",
    "nn.GLU()",
    "nn.GLU(1)",
    "nn.Hardshrink()",
    "nn.Softshrink(0.3)",
    "nn.CrossEntropyLoss()",
    "nn.CrossEntropyLoss(torch.ones(3), ignore_index=2, label_smoothing=0.1)",
    "nn.NLLLoss(torch.ones(3))",
    "nn.MSELoss(reduction='sum')",
    "nn.L1Loss()",
    "nn.SmoothL1Loss(beta=0.5)",
    "nn.HuberLoss(delta=2)",
    "nn.BCELoss()",
    "nn.BCEWithLogitsLoss(pos_weight=torch.ones(3))",
    "nn.KLDivLoss(reduction='batchmean', log_target=True)",
    "nn.DataParallel(nn.Linear(4, 3), device_ids=[0])",
    "nn.Sequential()",
    "nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 1)))",
    "nn.Sequential(nn.Linear(2, 3), nn.ReLU()) * 2 + nn.Sequential(nn.Tanh())",
    "nn.ModuleList()",
    "nn.ModuleList([nn.Linear(2, 2) for _ in range(3)] + [nn.ReLU()])",
    "nn.ModuleDict({'a': nn.Linear(2, 2), 'b': nn.ModuleList([nn.ReLU()])})",
    "nn.ModuleDict([['x', nn.ReLU()], ('y', nn.Tanh())])",
    "nn.ParameterList([torch.ones(2, 3), 'text', nn.Parameter(torch.ones(1))])",
    "nn.ParameterList(nn.Parameter(torch.ones(2)) for _ in range(3))[1:]",
    "nn.ParameterDict({'b': torch.ones(2, 3), 'a': 4})",
    "nn.ParameterDict([('b', nn.Parameter(torch.ones(2))), ('a', torch.zeros(3))])",
]

# Each starts from manual_seed(0).
STARTS = [
    "nn.Linear(4, 3).weight",
    "nn.Linear(40, 30).bias",
    "nn.Conv2d(3, 6, 5).weight",
    "nn.Conv2d(3, 6, 5).bias",
    "nn.Conv1d(4, 6, 3, groups=2).weight",
    "nn.Bilinear(3, 4, 2).bias",
    "nn.Embedding(10, 3, padding_idx=2).weight",
    "nn.PReLU(3).weight",
    "nn.Sequential(nn.Linear(3, 4), nn.Conv2d(2, 3, 3), nn.Linear(4, 3))[2].weight",
    "init.uniform_(torch.empty(5, 3), -1, 2)",
    "init.normal_(torch.empty(5, 7), 1, 2)",
    "init.trunc_normal_(torch.empty(20, 3))",
    "init.trunc_normal_(torch.empty(20, 3), std=0.02)",
    "init.trunc_normal_(torch.empty(20, 3), mean=3.0, a=0.0, b=1.0)",
    "init.trunc_normal_(torch.empty(20, 3), mean=0.5, std=2.0, a=0.0, b=1.0)",
    "init.constant_(torch.empty(2, 3), 0.3)",
    "init.ones_(torch.empty(2))",
    "init.zeros_(torch.empty(2))",
    "init.eye_(torch.empty(3, 5))",
    "init.dirac_(torch.empty(4, 2, 3))",
    "init.dirac_(torch.empty(4, 2, 3, 3), groups=2)",
    "init.dirac_(torch.empty(2, 2, 2, 2, 3))",
    "init.xavier_uniform_(torch.empty(3, 5), gain=2)",
    "init.xavier_normal_(torch.empty(3, 5, 2))",
    "init.kaiming_uniform_(torch.empty(3, 5), mode='fan_out', nonlinearity='relu')",
    "init.kaiming_normal_(torch.empty(6, 5, 2, 2), a=0.1)",
    "init.sparse_(torch.empty(6, 4), 0.4)",
]

VALUES = [
    "[init.calculate_gain(n) for n in "
    "('linear', 'conv2d', 'sigmoid', 'tanh', 'relu', 'leaky_relu', 'selu')]",
    "init.calculate_gain('leaky_relu', 0.3)",
    "[len(nn.Sequential(*[nn.ReLU()] * 3)), len(nn.ModuleList([nn.ReLU()])), len(nn.ModuleDict())]",
    "[k for k, _ in nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).named_parameters()]",
    "[k for k, _ in nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).named_buffers('x')]",
    "[k for k, _ in nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU())).named_modules()]",
    "nn.Sequential(nn.BatchNorm1d(3)).state_dict()._metadata",
    "[k for k in dir(nn.Linear(2, 3)) if k in ('weight', 'bias', 'in_features', 'forward')]",
    "[k for k in dir(nn.Sequential(nn.ReLU())) if k.isdigit()]",
    "repr(nn.Parameter(torch.ones(2)))",
    "repr(nn.Parameter(torch.ones(2), requires_grad=False))",
    "[nn.Buffer(torch.ones(2)).persistent, isinstance(nn.Buffer(torch.ones(1)), nn.Buffer), "
    "isinstance(torch.ones(1), nn.Buffer)]",
    "str(nn.Linear(2, 2).load_state_dict(nn.Linear(2, 2).state_dict()))",
    "str(nn.Linear(2, 2).load_state_dict({'weight': torch.ones(2, 2), 'x': 1}, strict=False))",
    "nn.Sequential(nn.Linear(2, 3), nn.ReLU()).get_submodule('0').out_features",
    "nn.Sequential(nn.Linear(2, 3), nn.ReLU()).get_parameter('0.bias').shape",
    "nn.Linear(2, 3).double().weight.dtype",
    "nn.Linear(2, 3).to(torch.float16).weight.dtype",
    "nn.BatchNorm1d(3).half().num_batches_tracked.dtype",
    "nn.Linear(2, 3, dtype=torch.float64).bias.dtype",
    "nn.Linear(2, 3).to('cpu', torch.float64).bias.dtype",
    "nn.Linear(2, 3).to(torch.ones(1, dtype=torch.float64)).bias.dtype",
    "nn.Linear(2, 3).requires_grad_(False).weight.requires_grad",
    "[m.training for m in nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh())).eval().modules()]",
    "list(nn.ParameterDict({'b': torch.ones(2), 'a': torch.ones(1)}).keys())",
    "nn.ParameterDict({'a': 1}).popitem()",
    "list((nn.ParameterDict({'a': 1}) | nn.ParameterDict({'b': 2})).items())",
    "F.one_hot(torch.tensor([[0, 2], [1, 0]]), 4).tolist()",
    "nn.utils.parameters_to_vector(nn.Linear(2, 3).parameters()).shape",
]

ERRORS = [
    "nn.Linear(2, 3).foo",
    "nn.Module()(1)",
    "nn.Module(1)",
    "nn.Module(a=1)",
    "nn.Module().register_buffer('a.b', torch.ones(1))",
    "nn.Module().register_buffer('', torch.ones(1))",
    "nn.Module().register_buffer(3, torch.ones(1))",
    "nn.Module().register_buffer('training', torch.ones(1))",
    "nn.Module().register_buffer('b', 3)",
    "nn.Module().register_parameter('a.b', None)",
    "nn.Module().register_parameter('', None)",
    "nn.Module().register_parameter(3, None)",
    "nn.Module().register_parameter('training', None)",
    "nn.Module().register_parameter('b', 3)",
    "nn.Module().register_parameter('b', torch.ones(2))",
    "nn.Module().add_module('b', 3)",
    "nn.Module().add_module('a.b', nn.ReLU())",
    "nn.Module().add_module('', nn.ReLU())",
    "nn.Module().add_module(3, nn.ReLU())",
    "nn.Module().add_module('training', nn.ReLU())",
    "setattr(nn.Linear(2, 3), 'weight', torch.ones(3, 2))",
    "setattr(nn.Linear(2, 3), 'weight', 3)",
    "setattr(nn.Sequential(nn.ReLU()), '0', 4)",
    "setattr(nn.BatchNorm1d(2), 'running_mean', 'x')",
    "delattr(nn.Linear(2, 3), 'foo')",
    "setattr(nn.Module.__new__(nn.Module), 'a', nn.Parameter(torch.ones(1)))",
    "setattr(nn.Module.__new__(nn.Module), 'a', nn.ReLU())",
    "nn.Module.__new__(nn.Module).register_buffer('a', None)",
    "nn.Module.__new__(nn.Module).register_parameter('a', None)",
    "nn.Linear(2, 3).train('x')",
    "nn.Linear(2, 3).get_submodule('a')",
    "nn.Linear(2, 3).get_submodule('weight')",
    "nn.Linear(2, 3).get_parameter('x.weight')",
    "nn.Linear(2, 3).get_parameter('in_features')",
    "nn.Linear(2, 3).get_parameter('foo')",
    "nn.BatchNorm1d(2).get_buffer('weight')",
    "nn.BatchNorm1d(2).get_buffer('foo')",
    "nn.Linear(2, 3).set_submodule('', nn.ReLU())",
    "nn.Linear(2, 3).set_submodule('a', 3)",
    "nn.Linear(2, 3).set_submodule('weight', nn.ReLU())",
    "nn.Linear(2, 3).set_submodule('a', nn.ReLU(), strict=True)",
    "nn.Linear(2, 3).get_extra_state()",
    "nn.Linear(2, 3).load_state_dict([1])",
    "nn.Linear(2, 3).load_state_dict({})",
    "nn.Linear(2, 3).load_state_dict({'weight': torch.ones(2, 2), 'bias': 3, 'x.y': 1, 'z': 2})",
    "nn.Sequential(nn.Linear(2, 3), nn.ReLU()).load_state_dict({'0.weight': torch.ones(3, 2)})",
    "nn.Sequential(nn.Linear(2, 3)).load_state_dict({'0.a.b': 1, '1.a': 2, '_extra_state': 3})",
    "nn.Linear(2, 3).to(torch.int32)",
    "nn.Linear(2, 3).to('cpu', 3, foo=1)",
    "nn.Linear(2, 3).to([1])",
    "nn.Parameter(torch.tensor([1]))",
    "nn.Sequential(nn.ReLU())[1]",
    "nn.Sequential(nn.ReLU())['a']",
    "nn.Sequential(3)",
    "nn.Sequential(nn.ReLU()) + 3",
    "nn.Sequential(nn.ReLU()) * 1.5",
    "nn.Sequential(nn.ReLU()) * 0",
    "nn.Sequential(nn.ReLU()).insert(5, nn.ReLU())",
    "nn.ModuleList([nn.ReLU()])[3]",
    "nn.ModuleList(3)",
    "nn.ModuleList([nn.ReLU()])(1)",
    "nn.ModuleList().extend(3)",
    "nn.ModuleDict(3)",
    "nn.ModuleDict([3])",
    "nn.ModuleDict([(1, 2, 3)])",
    "nn.ModuleDict()['a']",
    "nn.ParameterList([1])[4]",
    "nn.ParameterList(3)",
    "nn.ParameterList()()",
    "nn.ParameterDict(3)",
    "nn.ParameterDict({1: 2})",
    "nn.ParameterDict({}).popitem()",
    "nn.ParameterDict([(1, 2, 3)])",
    "nn.Unflatten(1, 3)",
    "nn.Unflatten(1, (2, 'a'))",
    "nn.Conv2d(3, 4, 3, groups=2)",
    "nn.Conv2d(4, 3, 3, groups=2)",
    "nn.Conv2d(3, 4, 3, groups=0)",
    "nn.Conv2d(3, 4, 3, stride=2, padding='same')",
    "nn.ConvTranspose2d(2, 3, 3, padding_mode='reflect')",
    "nn.ConvTranspose2d(2, 3, 3, stride=2)(torch.ones(1, 2, 5, 5), output_size=(20, 20))",
    "nn.ConvTranspose2d(2, 3, 3, stride=2)(torch.ones(1, 2, 5, 5), output_size=(20,))",
    "nn.FractionalMaxPool2d(2)",
    "nn.FractionalMaxPool2d(2, output_size=2, output_ratio=0.5)",
    "nn.FractionalMaxPool3d(2, output_ratio=(0.5, 0.5, 2))",
    "F.fractional_max_pool2d(torch.ones(2, 3, 6, 7), 2)",
    "F.max_unpool2d(torch.ones(1, 2, 2), torch.zeros(1, 2, 2).long() + 16, 2)",
    "F.max_unpool2d(torch.ones(1, 2, 2), torch.zeros(1, 2, 2).int(), 2)",
    "F.max_unpool2d(torch.ones(1, 2, 2), torch.zeros(1, 2, 1).long(), 2)",
    "F.max_unpool2d(torch.ones(1, 2, 2), torch.zeros(1, 2, 2).long(), 2, output_size=(9, 9))",
    "F.max_unpool2d(torch.ones(1, 2, 2), torch.zeros(1, 2, 2).long(), 2, output_size=(9,))",
    "F.max_unpool3d(torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 2).long(), 2, -1)",
    "F.max_pool1d(torch.ones(2, 3, 9), 2, 1, -1, return_indices=True)",
    "F.max_pool1d(torch.ones(2, 3, 9), 2, 0, return_indices=True)",
    "F.max_pool1d(torch.ones(2, 3, 9), 20, return_indices=True)",
    "F.max_pool1d(torch.ones(2, 3, 9), (2, 3), return_indices=True)",
    "F.max_pool1d(torch.ones(3), 2, return_indices=True)",
    "F.max_pool3d(torch.ones(2, 3, 5, 6, 7), (2, 3))",
    "F.max_pool3d(torch.ones(2, 3, 5, 6, 7), 2, 0)",
    "F.max_pool3d(torch.ones(2, 3, 5, 6, 7), 2, padding=2)",
    "F.max_pool3d(torch.ones(2, 0, 5, 6, 7), 2)",
    "F.avg_pool3d(torch.ones(2, 3, 5, 6, 7), 8)",
    "F.avg_pool3d(torch.ones(2, 3, 5, 6, 7), 2, (1, 2))",
    "F.avg_pool3d(torch.ones(2, 3, 5, 6, 7), 2, divisor_override=0)",
    "F.adaptive_avg_pool3d(torch.ones(2, 3, 5, 6, 7), -1)",
    "F.adaptive_max_pool3d(torch.ones(2, 3, 5, 0, 7), 2)",
    "F.unfold(torch.ones(2, 3), 2)",
    "F.unfold(torch.ones(3, 6, 7), 2, stride=0)",
    "F.fold(torch.ones(2, 12, 30), (6, 7, 8), 2)",
    "F.fold(torch.ones(2, 13, 30), (6, 7), 2)",
    "nn.Bilinear(0, 2, 3)",
    "nn.GroupNorm(2, 5)",
    "nn.Embedding(3, 2, padding_idx=3)",
    "nn.Embedding(3, 2, _weight=torch.ones(2, 2))",
    "nn.Embedding.from_pretrained(torch.ones(2))",
    "nn.Dropout(1.5)",
    "nn.Hardtanh(2, 1)",
    "nn.HuberLoss(delta='a')",
    "nn.BatchNorm1d(3)(torch.ones(3))",
    "nn.BatchNorm2d(3)(torch.ones(3, 3))",
    "nn.BatchNorm3d(3)(torch.ones(3, 3))",
    "nn.BatchNorm1d(3)(torch.ones(1, 3))",
    "nn.Softmax2d()(torch.ones(2))",
    "F.dropout(torch.ones(2), p=2)",
    "F.dropout1d(torch.ones(2))",
    "F.glu(torch.ones(()))",
    "F.hardtanh(torch.ones(2), 2, 1)",
    "F.mse_loss(torch.ones(2), torch.ones(2), reduction='foo')",
    "F.mse_loss(torch.ones(2), torch.ones(2), weight=torch.ones(3))",
    "F.binary_cross_entropy(torch.ones(2), torch.ones(3))",
    "F.binary_cross_entropy_with_logits(torch.ones(2), torch.ones(3))",
    "F.bilinear(torch.ones(2, 3), torch.ones(3, 4), torch.ones(5, 3, 4))",
    "F.bilinear(torch.ones(2, 3), torch.ones(2, 5), torch.ones(5, 3, 4))",
    "F.bilinear(torch.ones(2, 2), torch.ones(2, 4), torch.ones(5, 3, 4))",
    "F.bilinear(torch.ones(2, 3), torch.ones(2, 2, 4), torch.ones(5, 3, 4))",
    "F.bilinear(torch.ones(2, 3), torch.ones(2, 4), torch.ones(5, 3, 4), torch.ones(4))",
    "F.group_norm(torch.ones(3), 1)",
    "F.group_norm(torch.ones(1, 1), 1)",
    "F.batch_norm(torch.ones(4, 2), None, None, training=True, eps=0.0)",
    "F.embedding(torch.zeros(2, dtype=torch.int64), torch.ones(3, 2), padding_idx=4)",
    "F.adaptive_avg_pool2d(torch.ones(2, 3), (1, None))",
    "F.pad(torch.ones(2, 3), (1, 1, 1))",
    "F.pad(torch.ones(1, 3), (3, 1), mode='reflect')",
    "F.pad(torch.ones(1, 3), (1, 1), mode='foo')",
    "F.pad(torch.ones(3), (1, 1), mode='replicate')",
    "F.one_hot(torch.tensor([1, 2]), 2)",
    "F.one_hot(torch.tensor([-1, 2]))",
    "init.calculate_gain('foo')",
    "init.calculate_gain('leaky_relu', True)",
    "init.eye_(torch.empty(3))",
    "init.dirac_(torch.empty(3, 2))",
    "init.dirac_(torch.empty(3, 2, 2), 2)",
    "init.xavier_uniform_(torch.empty(3))",
    "init.kaiming_normal_(torch.empty(3, 2), mode='x')",
    "init.sparse_(torch.empty(3), 0.1)",
    "nn.utils.vector_to_parameters(3, [])",
    "nn.utils.clip_grad_norm_([grad_of(nn.Linear(2, 2), float('inf'))], 1.0, "
    "error_if_nonfinite=True)",
]

WARNINGS = [
    "nn.MSELoss(size_average=False)",
    "nn.L1Loss(reduce=False)",
    "nn.CrossEntropyLoss(size_average=True, reduce=True)",
    "nn.NLLLoss2d()",
    "nn.Hardtanh(min_value=-2, max_value=2)",
    "nn.Container()",
    "init.uniform(torch.empty(2))",
    "init.xavier_normal(torch.empty(2, 2))",
    "init.kaiming_uniform_(torch.empty(0, 2))",
    "init.trunc_normal_(torch.empty(2), mean=9.0)",
    "nn.Linear(2, 2).state_dict(None, 'a.')",
    "nn.utils.clip_grad_norm(nn.Linear(2, 2).parameters(), 1.0)",
    "nn.utils.clip_grad_norm_((p for p in []), 1.0)",
    "F.softmax(torch.ones(2, 2))",
    "nn.LogSoftmax()(torch.ones(2, 2))",
    "F.kl_div(torch.ones(2), torch.ones(2))",
    "F.mse_loss(torch.ones(2), torch.ones(2, 2))",
    "F.smooth_l1_loss(torch.ones(2), torch.ones(2, 2))",
    "F.mse_loss(torch.ones(2), torch.ones(2), size_average=False)",
    "F.dropout2d(torch.ones(2, 3, 4))",
    "F.dropout3d(torch.ones(1, 2, 2), 0.0)",
]


def namespace(torch):
    """The names that the expressions use."""

    def grad_of(module, value):
        parameter = next(module.parameters())
        parameter.grad = torch.full_like(parameter, value)
        return parameter

    nn = torch.nn
    return {
        "torch": torch,
        "nn": nn,
        "F": nn.functional,
        "init": nn.init,
        "grad_of": grad_of,
        **tensors(torch),
    }


def tensors(torch):
    """Inputs of the forward cases: x2 … x5 by rank, and the rest."""
    made = {}
    for name, shape in {
        "x1": (6,),
        "x2": (5, 6),
        "x3": (2, 4, 9),
        "x4": (2, 4, 9, 8),
        "x5": (2, 4, 3, 4, 3),
        "y2": (5, 6),
        "w": (6,),
    }.items():
        values = np.random.RandomState(len(name) + sum(shape)).randn(*shape)
        made[name] = torch.from_numpy(values.astype("float32"))
    chances = np.random.RandomState(3).uniform(0.1, 0.9, (5, 6))
    made["p2"] = torch.from_numpy(chances.astype("float32"))
    made["classes"] = torch.tensor([0, 5, 2, 2, 4])
    made["ids"] = torch.tensor([[1, 0, 3], [3, 9, 3]])
    return made


def quiet(expression, names):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return eval(expression, names)


def describe_module(torch, expression):
    """The text of a module and the names and shapes of what it holds."""
    torch.manual_seed(0)
    module = quiet(expression, namespace(torch))
    state = {key: list(value.shape) for key, value in module.state_dict().items()}
    names = [name for name, _ in module.named_parameters()]
    return {
        "repr": repr(module),
        "state": state,
        "parameters": names,
        "version": module._version,
        "attributes": sorted(key for key in vars(module) if key != "_compiled_call_impl"),
    }


def describe_start(torch, expression):
    """Starting values, and where the generator stands afterwards."""
    torch.manual_seed(0)
    values = quiet(expression, namespace(torch)).detach()
    after = torch.rand(1)
    return {
        "shape": list(values.shape),
        "first": values.reshape(-1)[:8].tolist(),
        "sum": values.to(torch.float64).sum().item(),
        "after": after.item(),
    }


def describe_value(torch, expression):
    return as_json(quiet(expression, namespace(torch)))


def as_json(value):
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def describe_error(torch, expression):
    try:
        quiet(expression, namespace(torch))
    except Exception as error:
        return {"type": type(error).__name__, "text": without_modules(str(error))}
    return {"type": "none", "text": ""}


def describe_warning(torch, expression):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        eval(expression, namespace(torch))
    return [[w.category.__name__, without_modules(str(w.message))] for w in caught]


def without_modules(text):
    """``torch.nn.modules.linear.Linear`` and ``flambeau.nn.linear.Linear`` as ``nn.Linear``."""
    return re.sub(r"(?:torch|flambeau)\.(?:nn|_)[\w.]*?\.([A-Z]\w*)", r"nn.\1", text)
