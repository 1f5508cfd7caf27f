"""The structs of include/attn/attn.h for ctypes, and a library that was loaded with them.

Run as a program, with a path to libattn.so, it checks them against the library: each struct is taken as it is, and
refused eight bytes shorter.
"""
import ctypes
import math
import sys

DEFAULT = -(2**63)  # ATTN_STRIDE_PACKED, ATTN_LENGTH_DEFAULT, ATTN_POSITION_DEFAULT, ATTN_WINDOW_UNLIMITED
CPU, CUDA = 0, 1
F32, F16, BF16, F8_E4M3, F8_E5M2 = 0, 1, 2, 3, 4
CAUSAL = 1
RAGGED = 2
INVALID_ARGUMENT, UNSUPPORTED = 1, 2
ALGORITHMS = {"auto": 0, "standard": 1, "flash1": 2, "flash2": 3}
ISAS = {"auto": 0, "portable": 1, "avx2": 2, "avx512": 3, "avx512_bf16": 4, "amx": 5, "neon": 6, "neon_bf16": 7,
        "sm80": 8, "sm90": 9}
C_I64, C_I32, C_U64, C_F32, POINTER, SIZE = (ctypes.c_int64, ctypes.c_int32, ctypes.c_uint64, ctypes.c_float,
                                             ctypes.c_void_p, ctypes.c_size_t)


def fields(kind, names):
    return [(name, kind) for name in names.split()]


class Strides(ctypes.Structure):
    """attn_strides or attn_score_strides."""
    _fields_ = fields(C_I64, "a b c")


class Problem(ctypes.Structure):
    _fields_ = (fields(SIZE, "struct_size")
                + fields(C_I64, "batch heads_q heads_kv seqlen_q seqlen_k dim_qk dim_v")
                + fields(C_I32, "dtype_q dtype_kv dtype_o") + fields(Strides, "q k v o")
                + fields(C_I32, "lengths_q lengths_k mask") + fields(C_I64, "window_left window_right")
                + fields(C_F32, "softcap dropout_p")
                + fields(C_I32, "has_alibi has_sinks has_bias has_mask dtype_bias")
                + fields(Strides, "bias mask_strides") + fields(C_I64, "alibi_stride_batch")
                + fields(C_I32, "needs_backward deterministic batch_invariant reserved")
                + fields(Strides, "dout dq dk dv") + fields(C_I32, "has_scales reserved_scales")
                + fields(C_I64, "scale_stride_batch scale_stride_head"))


class PlanOptions(ctypes.Structure):
    _fields_ = (fields(SIZE, "struct_size") + fields(C_I32, "algorithm isa threads exact_reference")
                + fields(C_U64, "workspace_limit"))


class Tensors(ctypes.Structure):
    _fields_ = (fields(SIZE, "struct_size")
                + fields(POINTER, "q k v o lse lengths_q lengths_k bias mask alibi_slopes sinks")
                + fields(C_I64, "seqlen_q seqlen_k total_q query_start key_start")
                + fields(C_U64, "dropout_seed dropout_offset") + fields(C_F32, "scale") + fields(C_I32, "reserved")
                + fields(POINTER, "dout dlse dq dk dv dbias dsinks q_scale k_scale v_scale"))


class Execution(ctypes.Structure):
    _fields_ = (fields(SIZE, "struct_size") + fields(POINTER, "workspace") + fields(SIZE, "workspace_bytes")
                + fields(POINTER, "stream"))


def make_problem(**given):
    """ATTN_PROBLEM_INIT, with some fields set."""
    packed = Strides(DEFAULT, DEFAULT, DEFAULT)
    strides = {name: packed for name in "q k v o bias mask_strides dout dq dk dv".split()}
    return Problem(struct_size=ctypes.sizeof(Problem),
                   **{"batch": 1, "heads_q": 1, "heads_kv": 1, "window_left": DEFAULT, "window_right": DEFAULT,
                      **strides, **given})


def make_options(**given):
    return PlanOptions(struct_size=ctypes.sizeof(PlanOptions), **given)


def make_execution(**given):
    return Execution(struct_size=ctypes.sizeof(Execution), **given)


def make_tensors(**given):
    return Tensors(struct_size=ctypes.sizeof(Tensors),
                   **{"seqlen_q": DEFAULT, "seqlen_k": DEFAULT, "total_q": DEFAULT, "query_start": DEFAULT,
                      "key_start": DEFAULT, "scale": math.inf, **given})


class Library:
    """libattn.so and a context on a device."""

    def __init__(self, path, device):
        self.c = ctypes.CDLL(path)
        for name in ("attn_last_error", "attn_plan_describe", "attn_context_describe", "attn_plan_kernel",
                     "attn_plan_backward_kernel"):
            getattr(self.c, name).restype = ctypes.c_char_p
            getattr(self.c, name).argtypes = [POINTER] if name != "attn_last_error" else []
        self.c.attn_forward.argtypes = self.c.attn_backward.argtypes = [POINTER] * 3
        self.c.attn_plan_destroy.argtypes = [POINTER]
        self.context = POINTER()
        self.must(self.c.attn_context_create(device, 0, None, ctypes.byref(self.context)))

    def must(self, status):
        if status:
            sys.exit(f"status {status}: {self.c.attn_last_error().decode()}")

    def plan_status(self, problem, options):
        plan = POINTER()
        status = self.c.attn_plan_create(self.context, ctypes.byref(problem), ctypes.byref(options),
                                         ctypes.byref(plan))
        return status, plan


def check_sizes(path):
    library = Library(path, CPU)
    problem = make_problem(seqlen_q=1, seqlen_k=1, dim_qk=4, dim_v=4)
    options = make_options()
    numbers = (ctypes.c_float * 4)(1, 2, 3, 4)
    address = ctypes.addressof(numbers)
    out = (ctypes.c_float * 4)()
    tensors = make_tensors(q=address, k=address, v=address, o=ctypes.addressof(out))
    status, plan = library.plan_status(problem, options)
    library.must(status)
    library.must(library.c.attn_forward(plan, ctypes.byref(tensors), None))
    assert list(out) == list(numbers), list(out)
    execution = make_execution()
    library.must(library.c.attn_forward(plan, ctypes.byref(tensors), ctypes.byref(execution)))
    for struct, call in ((problem, lambda: library.plan_status(problem, options)[0]),
                         (options, lambda: library.plan_status(problem, options)[0]),
                         (tensors, lambda: library.c.attn_forward(plan, ctypes.byref(tensors), None)),
                         (execution, lambda: library.c.attn_forward(plan, ctypes.byref(tensors),
                                                                    ctypes.byref(execution)))):
        struct.struct_size -= 8
        assert call() == INVALID_ARGUMENT, f"a {type(struct).__name__} that is 8 bytes short was taken"
        struct.struct_size += 8
    library.c.attn_plan_destroy(plan)
    print("5 passed, 0 failed")


if __name__ == "__main__":
    check_sizes(sys.argv[1])
