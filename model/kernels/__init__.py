from model.kernels.matmul import bf16_matmul, int8_matmul, pack_bf16, pack_int8
from model.kernels.native import is_available, status
from model.kernels.paged import paged_attention, write_pages
