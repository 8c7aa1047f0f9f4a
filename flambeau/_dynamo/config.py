"""``torch._dynamo.config``: switches of another compiler, kept for programs that set them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

accumulated_cache_size_limit = 256
allow_unspec_int_on_nn_module = False
assume_static_by_default = True
automatic_dynamic_shapes = True
cache_size_limit = 8
capture_dynamic_output_shape_ops = False
capture_scalar_outputs = False
compiled_autograd = False
disable = False
dynamic_shapes = True
error_on_recompile = False
guard_nn_modules = True
inline_inbuilt_nn_modules = True
log_level = 30
optimize_ddp = True
recompile_limit = 8
skip_fwd_side_effects_in_bwd_under_checkpoint = False
specialize_int = False
suppress_errors = False
verbose = False


@contextmanager
def patch(*changes: Any, **named: Any) -> Iterator[None]:
    """``with patch(name=value)`` or ``patch("name", value)``: sets switches for a while."""
    wanted = dict(named)
    if len(changes) == 2:
        wanted[changes[0]] = changes[1]
    elif changes:
        wanted.update(changes[0])
    own = globals()
    missing = object()
    before = {name: own.get(name, missing) for name in wanted}
    own.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is missing:
                del own[name]
            else:
                own[name] = value
