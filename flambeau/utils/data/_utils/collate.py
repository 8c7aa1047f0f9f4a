"""``torch.utils.data._utils.collate``."""

from flambeau.utils.data.collate import collate as collate
from flambeau.utils.data.collate import default_collate as default_collate
from flambeau.utils.data.collate import (
    default_collate_err_msg_format as default_collate_err_msg_format,
)
from flambeau.utils.data.collate import default_collate_fn_map as default_collate_fn_map
from flambeau.utils.data.collate import default_convert as default_convert
from flambeau.utils.data.collate import np_str_obj_array_pattern as np_str_obj_array_pattern
