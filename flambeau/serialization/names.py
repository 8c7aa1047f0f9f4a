"""The names that objects of this library have inside files: PyTorch's.

A file written here says ``torch.nn.modules.linear.Linear`` and is read by PyTorch; one written
there finds our classes. What both sides must agree on exactly is in tables; anything else is found
by putting ``torch`` for ``flambeau`` in its module's name, or the other way round.
"""

from __future__ import annotations

import importlib
from typing import Any

from flambeau.core import dtype as dtypes
from flambeau.serialization.rebuild import fixed_globals, storage_types

PACKAGE = __name__.partition(".")[0]

# Where PyTorch defines the classes that its packages `nn`, `optim` and `utils.data` export.
_HOMES = {
    "torch.nn.parameter": "Buffer Parameter UninitializedBuffer UninitializedParameter",
    "torch.nn.modules.module": "Module",
    "torch.nn.modules.container": (
        "Container ModuleDict ModuleList ParameterDict ParameterList Sequential"
    ),
    "torch.nn.modules.linear": "Bilinear Identity LazyLinear Linear",
    "torch.nn.modules.conv": (
        "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d LazyConv1d "
        "LazyConv2d LazyConv3d LazyConvTranspose1d LazyConvTranspose2d LazyConvTranspose3d"
    ),
    "torch.nn.modules.pooling": (
        "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d "
        "AdaptiveMaxPool2d AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d FractionalMaxPool2d "
        "FractionalMaxPool3d LPPool1d LPPool2d LPPool3d MaxPool1d MaxPool2d MaxPool3d "
        "MaxUnpool1d MaxUnpool2d MaxUnpool3d"
    ),
    "torch.nn.modules.adaptive": "AdaptiveLogSoftmaxWithLoss",
    "torch.nn.modules.dropout": (
        "AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout"
    ),
    "torch.nn.modules.loss": (
        "BCELoss BCEWithLogitsLoss CTCLoss CosineEmbeddingLoss CrossEntropyLoss GaussianNLLLoss "
        "HingeEmbeddingLoss HuberLoss KLDivLoss L1Loss MSELoss MarginRankingLoss "
        "MultiLabelMarginLoss MultiLabelSoftMarginLoss MultiMarginLoss NLLLoss NLLLoss2d "
        "PoissonNLLLoss SmoothL1Loss SoftMarginLoss TripletMarginLoss "
        "TripletMarginWithDistanceLoss"
    ),
    "torch.nn.modules.batchnorm": (
        "BatchNorm1d BatchNorm2d BatchNorm3d LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d "
        "SyncBatchNorm"
    ),
    "torch.nn.modules.instancenorm": (
        "InstanceNorm1d InstanceNorm2d InstanceNorm3d LazyInstanceNorm1d LazyInstanceNorm2d "
        "LazyInstanceNorm3d"
    ),
    "torch.nn.modules.normalization": (
        "CrossMapLRN2d GroupNorm LayerNorm LocalResponseNorm RMSNorm"
    ),
    "torch.nn.modules.activation": (
        "CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid "
        "LogSoftmax Mish MultiheadAttention PReLU RReLU ReLU ReLU6 SELU SiLU Sigmoid Softmax "
        "Softmax2d Softmin Softplus Softshrink Softsign Tanh Tanhshrink Threshold"
    ),
    "torch.nn.modules.channelshuffle": "ChannelShuffle",
    "torch.nn.modules.padding": (
        "CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d ConstantPad3d "
        "ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d "
        "ReplicationPad3d ZeroPad1d ZeroPad2d ZeroPad3d"
    ),
    "torch.nn.modules.distance": "CosineSimilarity PairwiseDistance",
    "torch.nn.modules.sparse": "Embedding EmbeddingBag",
    "torch.nn.modules.flatten": "Flatten Unflatten",
    "torch.nn.modules.fold": "Fold Unfold",
    "torch.nn.modules.rnn": "GRU GRUCell LSTM LSTMCell RNN RNNBase RNNCell RNNCellBase",
    "torch.nn.modules.pixelshuffle": "PixelShuffle PixelUnshuffle",
    "torch.nn.modules.transformer": (
        "Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder "
        "TransformerEncoderLayer"
    ),
    "torch.nn.modules.upsampling": "Upsample UpsamplingBilinear2d UpsamplingNearest2d",
    "torch.optim.optimizer": "Optimizer",
    "torch.optim.adadelta": "Adadelta",
    "torch.optim.adagrad": "Adagrad",
    "torch.optim.adam": "Adam",
    "torch.optim.adamax": "Adamax",
    "torch.optim.adamw": "AdamW",
    "torch.optim.asgd": "ASGD",
    "torch.optim.lbfgs": "LBFGS",
    "torch.optim.nadam": "NAdam",
    "torch.optim.radam": "RAdam",
    "torch.optim.rmsprop": "RMSprop",
    "torch.optim.rprop": "Rprop",
    "torch.optim.sgd": "SGD",
    "torch.optim.sparse_adam": "SparseAdam",
    "torch.utils.data.dataset": (
        "ChainDataset ConcatDataset Dataset IterableDataset StackDataset Subset TensorDataset"
    ),
    "torch.utils.data.dataloader": "DataLoader",
    "torch.utils.data.sampler": (
        "BatchSampler RandomSampler Sampler SequentialSampler SubsetRandomSampler "
        "WeightedRandomSampler"
    ),
}

# By the package below the root and the class name: ("nn", "Linear") -> "torch.nn.modules.linear".
_home_of = {
    (module.split(".")[1], name): module
    for module, names in _HOMES.items()
    for name in names.split()
}

# Spread over files here, one module in PyTorch.
_FLAT = "nn.functional"
# Packages whose public functions and classes PyTorch has directly in `torch`.
_INTERNAL = frozenset({"bindings", "core", "engine", "interchange", "ops", "tensor"})


def _fixed_table() -> dict[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = dict(fixed_globals)
    table.update({("torch", name): found for name, found in dtypes.BY_NAME.items()})
    table.update({(found.module, found.name): found for found in storage_types})
    return table


fixed_names = _fixed_table()
_name_by_id = {id(found): name for name, found in fixed_names.items()}


def torch_name(found: Any, name: str | None = None) -> tuple[str, str] | None:
    """Module and name under which a class, function or dtype of ours goes into a file.

    None for what is not this library's.
    """
    fixed = _name_by_id.get(id(found))
    if fixed is not None:
        return fixed
    module = getattr(found, "__module__", None)
    if not isinstance(module, str):
        return None
    root, _, inner = module.partition(".")
    if root not in (PACKAGE, "torch"):
        return None
    name = name or getattr(found, "__qualname__", None) or found.__name__
    package = inner.partition(".")[0]
    home = _home_of.get((package, name))
    if home is not None:
        return home, name
    if inner.startswith(_FLAT):
        return f"torch.{_FLAT}", name
    if not inner or package in _INTERNAL:
        return "torch", name
    return f"torch.{inner}", name


def is_torch_module(module: str) -> bool:
    """Whether a module name in a file means PyTorch, hence this library."""
    return module.partition(".")[0] == "torch"


def find_torch_global(module: str, name: str) -> Any:
    """Our object for PyTorch's ``module.name``; AttributeError if there is none.

    Imports modules of this library; a restricted load must look into `fixed_names` instead.
    """
    fixed = fixed_names.get((module, name))
    if fixed is not None:
        return fixed
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        candidate = ".".join([PACKAGE, *parts[1:length]])
        try:
            found: Any = importlib.import_module(candidate)
        except ModuleNotFoundError:
            continue
        try:
            for attribute in name.split("."):
                found = getattr(found, attribute)
        except AttributeError:
            continue
        return found
    raise AttributeError(f"{module}.{name} of PyTorch is not available in {PACKAGE}")
