"""What an untrusted TorchScript file may name: operators that only compute, and what the file itself defines.

The code of a TorchScript file is text in a small part of Python's syntax. `check_code` reads it as such and refuses
every operator that is not in the lists here, so that one which is unknown, or new in torch, is refused too. Text that
torch might read in another way than Python does (comments, carriage returns, prefixes of strings) is refused as well.
"""
import ast
import io
import tokenize
from collections.abc import Iterator

import torch

_MAX_BYTES = 1 << 24  # of one file of code
_MAX_NESTING = 100  # brackets


class UnsafeScript(ValueError):
    """A TorchScript file that may do more than compute."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operators on tensors (aten), without those that take views or sizes unchecked, draw random numbers, or change a
# tensor's storage or gradient.
_TENSORS = _names("""
    abs absolute acos acosh add add_ addbmm addcdiv addcmul addmm addmv adjoint alias all amax amin aminmax any arange
    arccos arcsin arctan argmax argmin argsort as_tensor asin asinh atan atan2 atanh atleast_1d atleast_2d atleast_3d
    baddbmm bincount bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor bmm
    broadcast_tensors broadcast_to bucketize cat cdist ceil ceil_ chunk clamp clamp_ clamp_max clamp_max_ clamp_min
    clamp_min_ clip clip_ clone column_stack complex concat concatenate conj contiguous copy_ copysign cos cosh
    cosine_similarity count_nonzero cov cross cummax cummin cumprod cumsum deg2rad det detach diag diag_embed diagflat
    diagonal diff dim dist div div_ divide dot dsplit dstack einsum empty empty_like eq equal erf erfc erfinv exp exp2
    exp_ expand expand_as expm1 eye fft_fft fft_fft2 fft_fftn fft_fftshift fft_ifft fft_ifft2 fft_ifftn fft_ifftshift
    fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftn fill fill_ flatten flip fliplr flipud float_power
    floor floor_ floor_divide fmax fmin fmod frac frobenius_norm full full_like gather gcd ge greater greater_equal gt
    hamming_window hann_window heaviside histc hsplit hstack hypot imag index index_add index_copy index_fill index_put
    index_select inner inverse is_complex is_contiguous is_floating_point is_nonzero is_same_size is_signed isclose
    isfinite isin isinf isnan isneginf isposinf isreal istft item kron kthvalue ldexp le lerp less less_equal lgamma
    linalg_cholesky linalg_det linalg_eigh linalg_inv linalg_matrix_norm linalg_norm linalg_qr linalg_solve linalg_svd
    linalg_vector_norm linspace log log10 log1p log2 log_ logaddexp logcumsumexp logdet logical_and logical_not
    logical_or logical_xor logit logspace logsumexp lt masked_fill masked_fill_ masked_scatter masked_select matmul
    matrix_exp max maximum mean median meshgrid min minimum mm mode moveaxis movedim msort mul mul_ multiply mv
    nan_to_num nan_to_num_ nanmean nanmedian nanquantile nansum narrow ndim ndimension ne neg neg_ negative new_empty
    new_full new_ones new_zeros nonzero norm not_equal nuclear_norm numel ones ones_like outer permute pinverse polar
    positive pow pow_ prod quantile rad2deg ravel real reciprocal reciprocal_ remainder renorm repeat repeat_interleave
    reshape reshape_as resolve_conj resolve_neg roll rot90 round round_ rsqrt rsqrt_ rsub scalar_tensor scatter
    scatter_ scatter_add scatter_reduce searchsorted select select_scatter sgn sign signbit sin sinc sinh size slice
    slice_scatter sort special_erf special_expit special_log1p special_softmax split split_with_sizes sqrt sqrt_ square
    square_ squeeze stack std std_mean stft storage_offset stride sub sub_ subtract sum swapaxes swapdims t take
    take_along_dim tan tanh tensor tensor_split tensordot tile to topk trace transpose trapezoid tril triu true_divide
    trunc type_as unbind unflatten unfold unique_consecutive unsqueeze var var_mean vdot view view_as vsplit vstack
    where xlogy zero_ zeros zeros_like
""")
# Layers and what torch.nn.functional is made of.
_LAYERS = _names("""
    __interpolate __upsample __upsample_bilinear __upsample_nearest _convolution _log_softmax
    _native_multi_head_attention _softmax _transform_bias_rescale_qkv _upsample_bicubic2d_aa _upsample_bilinear2d_aa
    _upsample_lanczos2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d affine_grid_generator alpha_dropout avg_pool1d avg_pool2d avg_pool3d batch_norm bilinear celu
    celu_ channel_shuffle col2im constant_pad_nd conv1d conv2d conv3d conv_transpose1d conv_transpose2d
    conv_transpose3d convolution cross_entropy_loss dropout dropout_ elu elu_ embedding feature_dropout gelu gelu_ glu
    grid_sampler grid_sampler_2d grid_sampler_3d group_norm gru gru_cell hardshrink hardsigmoid hardsigmoid_ hardswish
    hardswish_ hardtanh hardtanh_ huber_loss im2col instance_norm l1_loss layer_norm leaky_relu leaky_relu_ linear
    log_sigmoid log_softmax lstm lstm_cell max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices
    max_pool3d max_pool3d_with_indices mish mish_ mse_loss native_batch_norm native_group_norm native_layer_norm
    nll_loss one_hot pad pairwise_distance pixel_shuffle pixel_unshuffle prelu reflection_pad1d reflection_pad2d
    reflection_pad3d relu relu6 relu6_ relu_ replication_pad1d replication_pad2d replication_pad3d rms_norm rnn_tanh
    scaled_dot_product_attention selu selu_ sigmoid sigmoid_ silu silu_ smooth_l1_loss softmax softplus softshrink
    tanh_ threshold threshold_ upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d upsample_trilinear3d zero_pad2d
""")
# Python's operators on numbers, texts, lists and dictionaries, and questions about the machine.
_PLAIN = _names("""
    Bool BoolImplicit Complex ComplexImplicit Delete Float FloatImplicit Int IntImplicit ScalarImplicit __and__
    __contains__ __derive_index __getitem__ __is__ __isnot__ __lshift__ __not__ __or__ __range_length __rshift__
    __round_to_zero_floordiv __xor__ _set_item append clear copy count degrees divmod endswith extend find floordiv
    format get get_device hash insert is_autocast_enabled is_cuda is_grad_enabled isdigit items join keys len list
    lower lstrip mathremainder ord pop radians remove replace reverse rfind rstrip setdefault sorted splitlines
    startswith str strip update upper values warn
""")
_ATEN = _TENSORS | _LAYERS | _PLAIN
_PRIM = _names("""
    H RaiseException T TupleIndex TupleUnpack abs data device dtype enumerate grad_fn is_cpu is_cuda is_mps is_nested
    is_quantized is_sparse is_xpu isinstance itemsize layout mH mT max min name ndim range rangelist requires_grad shape
    type unchecked_cast unchecked_unwrap_optional zip
""")

_NAMESPACES = _names("torch ops __torch__")
# Names without a dot before them that a function may use without giving them a value.
_FREE = _NAMESPACES | _names("""
    AssertionError Any CONSTANTS Device Dict Enum Exception Final Interface Layout List MemoryFormat Module
    ModuleInterface NamedTuple NoneType Optional Scalar Stream Tensor Tuple Type Union __annotations__ abs all annotate
    any bool chr complex dict divmod enumerate float getattr hasattr inf infj int isinstance len list max min nan nanj
    number ord pow range round sorted str sum t tuple unchecked_cast uninitialized zip
""")
# Names that stand for more than a value: nothing in the file may take them.
_TAKEN = _NAMESPACES | _names("CONSTANTS awaitable fork getattr open print rpc_async rpc_remote rpc_sync super")

_SYNTAX = (
    ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.AugAssign, ast.AnnAssign,
    ast.Return, ast.If, ast.While, ast.For, ast.Pass, ast.Expr, ast.Break, ast.Continue, ast.Raise, ast.Assert,
    ast.Call, ast.keyword, ast.Name, ast.Attribute, ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.Subscript,
    ast.Slice, ast.Starred, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.expr_context,
    ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip


def check_code(code: bytes) -> None:
    """Refuses the text of one file of code unless everything in it is known; executes nothing.

    Raises:
        UnsafeScript: names what is not known.
    """
    if len(code) > _MAX_BYTES:
        raise UnsafeScript(f"it has {len(code):,} bytes of code in one file, more than {_MAX_BYTES:,}")
    try:
        text = code.decode("ascii")
        _check_tokens(text)
        tree = ast.parse(text)
    except UnsafeScript:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise UnsafeScript("its code is not in the form that torch writes") from error
    _check_module(tree)


def _check_tokens(text: str) -> None:
    """Refuses what torch and Python may read differently."""
    if not all(" " <= char <= "~" or char == "\n" for char in text):
        raise UnsafeScript("its code has control characters")
    depth = run = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.string[0] not in "\"'"):
            raise UnsafeScript(f"its code has `{token.string[:40]}`, which torch does not write")
        if token.type == tokenize.STRING and token.string[:3] in ('"""', "'''"):
            raise UnsafeScript("its code has a text of several lines, which torch does not write")
        depth += (token.string in ("(", "[", "{")) - (token.string in (")", "]", "}"))
        run = run + 1 if token.string in ("+", "-", "~", "not") else 0
        if max(depth, run) > _MAX_NESTING:
            raise UnsafeScript("its code is nested too deeply")
    if any(line.endswith("\\") for line in text.split("\n")):
        raise UnsafeScript("its code has lines that continue, which torch does not write")


def _check_module(tree: ast.Module) -> None:
    owned = {node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    _refuse_taken(owned)
    for node in tree.body:
        _check_scope(node, owned)


def _check_scope(node: ast.stmt, outer: set[str]) -> None:
    """A function, or a class with its own names and its functions, or a statement between them."""
    if isinstance(node, ast.ClassDef):
        functions = [part for part in node.body if isinstance(part, ast.FunctionDef)]
        inside = {name for part in node.body if part not in functions for name in _bound(part)}
        _refuse_taken(inside | {part.name for part in functions})
        for part in node.body:
            _check_scope(part, outer if part in functions else outer | inside)
        for other in (*node.bases, *node.keywords, *node.decorator_list):
            _check_nodes(other, outer)
        return
    bound = _bound(node)
    _refuse_taken(bound)
    _check_nodes(node, outer | bound)


def _bound(node: ast.AST) -> set[str]:
    """Names that a statement gives a value to, those of functions inside it included."""
    names = set()
    for part in ast.walk(node):
        if isinstance(part, ast.arg):
            names.add(part.arg)
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            names.add(part.id)
        elif isinstance(part, ast.FunctionDef):
            names.add(part.name)
    return names


def _refuse_taken(names: set[str]) -> None:
    if taken := sorted(names & _TAKEN):
        raise UnsafeScript(f"its code gives `{taken[0]}` another meaning")


def _check_nodes(root: ast.AST, known: set[str]) -> None:
    covered: set[int] = set()  # parts of names with dots, which are looked at as a whole
    for node in ast.walk(root):
        if not isinstance(node, _SYNTAX):
            raise UnsafeScript(f"its code has a {type(node).__name__}, which torch does not write")
        if isinstance(node, ast.Attribute) and id(node) not in covered:
            chain = list(_chain(node))
            is_value = isinstance(chain[-1], ast.Name) and chain[-1].id not in _NAMESPACES
            covered.update(id(part) for part in (chain[:-1] if is_value else chain))
            _check_dotted(chain)
        elif isinstance(node, ast.Name) and id(node) not in covered:
            if node.id not in known | _FREE:
                raise UnsafeScript(f"its code names `{node.id}`, which is not known to only compute")
            if node.id in _NAMESPACES:
                raise UnsafeScript(f"its code uses `{node.id}` itself as a value")
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str) and not all(c.isprintable() or c in "\n\t" for c in node.value):
                raise UnsafeScript("its code has a text with control characters")
        elif isinstance(node, ast.Call):
            _check_getattr(node)


def _chain(node: ast.AST) -> Iterator[ast.Attribute | ast.Name]:
    """The parts of a name with dots from the last to the first, which is missing if that is an expression."""
    while isinstance(node, ast.Attribute):
        yield node
        node = node.value
    if isinstance(node, ast.Name):
        yield node


def _check_dotted(chain: list[ast.Attribute | ast.Name]) -> None:
    """A name with dots: an operator, a name of the file's own code, or an attribute or method of a value."""
    names = [part.attr for part in reversed(chain) if isinstance(part, ast.Attribute)]
    root = chain[-1].id if isinstance(chain[-1], ast.Name) else None
    if root == "torch":
        _check_operator("torch", names[0], names[0] in _ATEN)
        names = names[1:]
    elif root == "ops":
        if len(names) < 2:
            raise UnsafeScript("its code uses a namespace of operators as a value")
        operators = {"aten": _ATEN, "prim": _PRIM}.get(names[0], frozenset())
        _check_operator(f"ops.{names[0]}", names[1], names[1] in operators)
        names = names[2:]
    elif root == "__torch__":  # the file's own code, or classes that are compiled into torch
        _check_operator("torch.classes", names[-1], names[:2] != ["torch", "classes"])
        names = []
    for name in names:
        _check_attribute(name)


def _check_operator(namespace: str, name: str, is_known: bool) -> None:
    if not is_known:
        raise UnsafeScript(f"its code names `{namespace}.{name}`, which is not known to only compute")


def _check_attribute(name: str) -> None:
    """An attribute is the file's own unless torch has an operator of that name, which a tensor's method would be."""
    if name in _ATEN or name in _PRIM:
        return
    if hasattr(torch.ops.aten, name) or hasattr(torch.ops.prim, name):
        raise UnsafeScript(f"its code names `{name}`, which is not known to only compute")


def _check_getattr(node: ast.Call) -> None:
    """An attribute by a text must be a plain one, which is then looked at like any other."""
    if isinstance(node.func, ast.Name) and node.func.id == "getattr":
        name = node.args[1] if len(node.args) == 2 else None
        if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
            raise UnsafeScript("its code names attributes that cannot be foreseen")
        _check_attribute(name.value)
