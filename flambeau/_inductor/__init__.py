"""``torch._inductor``: another compiler's switches, for programs that set them."""

from flambeau._inductor import config
