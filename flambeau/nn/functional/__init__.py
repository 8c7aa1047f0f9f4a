"""``torch.nn.functional``: layers, activations and losses as functions."""

from flambeau.nn.functional.activation import (
    celu,
    celu_,
    elu,
    elu_,
    glu,
    gumbel_softmax,
    hardsigmoid,
    hardswish,
    hardtanh,
    hardtanh_,
    leaky_relu,
    leaky_relu_,
    log_softmax,
    mish,
    relu,
    relu6,
    relu_,
    rrelu,
    rrelu_,
    selu,
    selu_,
    sigmoid,
    silu,
    softmax,
    softmin,
    softsign,
    tanh,
    tanhshrink,
    threshold,
    threshold_,
)
from flambeau.nn.functional.attention import multi_head_attention_forward
from flambeau.nn.functional.dropout import (
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_alpha_dropout,
)
from flambeau.nn.functional.embedding_bag import embedding_bag
from flambeau.nn.functional.layers import (
    batch_norm,
    bilinear,
    embedding,
    group_norm,
    layer_norm,
    normalize,
    rms_norm,
)
from flambeau.nn.functional.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from flambeau.nn.functional.margin_loss import (
    cosine_embedding_loss,
    gaussian_nll_loss,
    hinge_embedding_loss,
    margin_ranking_loss,
    multilabel_soft_margin_loss,
    poisson_nll_loss,
    soft_margin_loss,
    triplet_margin_loss,
    triplet_margin_with_distance_loss,
)
from flambeau.nn.functional.padding import pad
from flambeau.nn.functional.pooling import (
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool1d_with_indices,
    adaptive_max_pool2d,
    adaptive_max_pool2d_with_indices,
    adaptive_max_pool3d,
    adaptive_max_pool3d_with_indices,
    max_pool1d,
    max_pool1d_with_indices,
    max_pool2d,
    max_pool2d_with_indices,
    max_pool3d,
    max_pool3d_with_indices,
)
from flambeau.nn.functional.unpooling import (
    fold,
    fractional_max_pool2d,
    fractional_max_pool2d_with_indices,
    fractional_max_pool3d,
    fractional_max_pool3d_with_indices,
    lp_pool1d,
    lp_pool2d,
    lp_pool3d,
    max_unpool1d,
    max_unpool2d,
    max_unpool3d,
    unfold,
)
from flambeau.ops.activation import gelu, hardshrink, prelu, softplus, softshrink
from flambeau.ops.activation import log_sigmoid as logsigmoid
from flambeau.ops.attention import scaled_dot_product_attention
from flambeau.ops.channels import channel_shuffle, pixel_shuffle, pixel_unshuffle
from flambeau.ops.convolution import conv1d, conv2d
from flambeau.ops.joining import one_hot
from flambeau.ops.linear_algebra import cosine_similarity, pairwise_distance
from flambeau.ops.matmul import linear
from flambeau.ops.pooling import adaptive_avg_pool1d, avg_pool1d, avg_pool2d
from flambeau.ops.transposed_convolution import conv_transpose1d, conv_transpose2d
from flambeau.ops.volume_convolution import conv3d, conv_transpose3d
from flambeau.ops.volume_pooling import avg_pool3d
