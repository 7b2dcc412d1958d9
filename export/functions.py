"""Definition of the ops in domain `moembed`: model-local ONNX functions with bodies of standard operators.

Any ONNX Runtime that reads opset 23 (1.24 and later) inlines the bodies. A registered native kernel of the same domain and name
takes the place of a body, and is tested against it. The bodies mirror `moembed.models.ops`, in ONNX's textual syntax.
"""

from functools import cache

import onnx
from onnx import parser
from onnx.defs import OpSchema

DOMAIN = "moembed"
VERSION = 1
OPSET = 23
IR_VERSION = 10

HEADER = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>\n'

# x [T,hidden], weight [experts,hidden] -> weights [T,top_k], expert_indices [T,top_k] int64
ROUTER = """
Router <top_k> (x, weight) => (weights, expert_indices)
{
    logits = Gemm <transB = 1> (x, weight)
    probabilities = Softmax <axis = -1> (logits)
    axis = Constant <value_ints = [0]> ()
    k = Constant <value_int: int = @top_k> ()
    k1 = Unsqueeze (k, axis)
    weights, expert_indices = TopK <axis = -1, largest = 1, sorted = 1> (probabilities, k1)
}
"""

# Queries and keys `q_rows`, `k_rows` [T,hidden], rotated, of qkv [T,3*hidden], and `cell` [T]: the tokens' places in a batch
# whose rows are padded to whole blocks of 16.
ROTATED = """
    axis0 = Constant <value_ints = [0]> ()
    axis12 = Constant <value_ints = [1, 2]> ()
    two = Constant <value_ints = [2]> ()
    count = Shape (tokens)
    multiple = Constant <value_ints = [16]> ()
    fill = Constant <value_ints = [15]> ()
    batch = Shape <start = 0, end = 1> (attention_mask)
    sequence = Shape <start = 1, end = 2> (attention_mask)
    reach = Add (sequence, fill)
    blocks = Div (reach, multiple)
    columns = Mul (blocks, multiple)
    cells = Mul (batch, columns)
    half_dim = Shape <start = 1, end = 2> (cos)
    head_dim = Mul (half_dim, two)
    heads0 = Constant <value_int: int = @num_heads> ()
    heads = Unsqueeze (heads0, axis0)
    hidden = Mul (heads, head_dim)

    position = Mod (tokens, sequence)
    text = Div (tokens, sequence)
    start = Mul (text, columns)
    cell = Add (start, position)
    cos_rows = Gather (cos, position)
    sin_rows = Gather (sin, position)
    c = Unsqueeze (cos_rows, axis0)
    s = Unsqueeze (sin_rows, axis0)
    q_packed, k_packed, v_packed = Split <axis = 1, num_outputs = 3> (qkv)
    q_one = Unsqueeze (q_packed, axis0)
    k_one = Unsqueeze (k_packed, axis0)
    q_turned = RotaryEmbedding <num_heads: int = @num_heads> (q_one, c, s)
    k_turned = RotaryEmbedding <num_heads: int = @num_heads> (k_one, c, s)
    q_rows = Squeeze (q_turned, axis0)
    k_rows = Squeeze (k_turned, axis0)
"""

# `places` [batch*columns]: the token of each cell; a pad cell has the first token.
PLACES = """
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    total = Squeeze (count, axis0)
    ascending = Range (zero, total, one)
    first_token = ConstantOfShape <value = int64[1] {0}> (cells)
    places = ScatterElements <axis = 0> (first_token, cell, ascending)
    grid_shape = Concat <axis = 0> (batch, columns, heads, head_dim)
"""

# Queries are computed in `parts` of `height` rows, one after the other, so that the scores of a long text are never in memory all
# at once: about `scores_of_part` are, of all texts and heads, or those of `{least}` rows if these are more. A height is a
# multiple of 16. The results of a query depend on it and on all keys, and not on its part.
#
# `q_cell` [T]: the place of each token in `q_shape` [parts,batch,height,heads,head_dim]; `q_places` [parts*batch*height]: the
# token of each of these places, as `places` for keys.
PARTS = """
    scores_of_part = Constant <value_ints = [1048576]> ()
    one1 = Constant <value_ints = [1]> ()
    across = Mul (cells, heads)
    across1 = Max (across, one1)
    fair = Div (scores_of_part, across1)
    most = Max (fair, {least})
    most_less = Sub (most, one1)
    columns1 = Max (columns, one1)
    beyond_most = Add (columns1, most_less)
    fewest = Div (beyond_most, most)
    in_all = Mul (fewest, multiple)
    in_all_less = Sub (in_all, one1)
    beyond_all = Add (columns1, in_all_less)
    steps = Div (beyond_all, in_all)
    height = Mul (steps, multiple)
    height_less = Sub (height, one1)
    beyond_height = Add (columns1, height_less)
    parts = Div (beyond_height, height)
    part = Div (position, height)
    row = Mod (position, height)
    part_start = Mul (part, batch)
    part_text = Add (part_start, text)
    row_start = Mul (part_text, height)
    q_cell = Add (row_start, row)
    q_shape = Concat <axis = 0> (parts, batch, height, heads, head_dim)
    q_texts = Mul (parts, batch)
    q_cells = Mul (q_texts, height)
    q_first_token = ConstantOfShape <value = int64[1] {{0}}> (q_cells)
    q_places = ScatterElements <axis = 0> (q_first_token, q_cell, ascending)
"""

# `bias` [batch,1,1,columns]: 0 for a token and the lowest float for a pad cell; `mask` [batch,columns]: 1 or 0.
MASK_BIAS = """
    beyond = Sub (columns, sequence)
    none = Constant <value_ints = [0, 0, 0]> ()
    margins = Concat <axis = 0> (none, beyond)
    framed = Pad (attention_mask, margins)
    mask = CastLike (framed, qkv)
    full = Constant <value_float = 1.0> ()
    lowest = Constant <value_float = -3.4028234663852886e38> ()
    absent = Sub (full, mask)
    penalty = Mul (absent, lowest)
    bias = Unsqueeze (penalty, axis12)
"""

# qkv [T,3*hidden], tokens [T], attention_mask [batch,sequence], cos and sin [positions,head_dim/2] -> y [T,hidden].
# A pad cell holds some token's values; the mask makes it exactly zero in every sum.
ATTENTION = (
    "Attention <num_heads> (qkv, tokens, attention_mask, cos, sin) => (y)\n{"
    + ROTATED
    + PLACES
    + """
    k_cells = Gather (k_rows, places)
    v_cells = Gather (v_packed, places)
    k_grid = Reshape (k_cells, grid_shape)
    v_grid = Reshape (v_cells, grid_shape)
    k_columns = Transpose <perm = [0, 2, 3, 1]> (k_grid)
    v = Transpose <perm = [0, 2, 1, 3]> (v_grid)
"""
    # Of a product with fewer rows than columns, the threads would divide the columns, which can change the order of sums.
    + "    twice = Add (head_dim, head_dim)\n"
    + PARTS.format(least="twice")
    + """
    q_chosen = Gather (q_rows, q_places)
    q_grid = Reshape (q_chosen, q_shape)
    q = Transpose <perm = [0, 1, 3, 2, 4]> (q_grid)
    width = CastLike (head_dim, qkv)
    root = Sqrt (width)
"""
    + MASK_BIAS
    + """
    out_parts = Scan <num_scan_inputs = 1, body = part_of_queries (q_part) => (out_part) {
        raw = MatMul (q_part, k_columns)
        scaled = Div (raw, root)
        scores = Add (scaled, bias)
        attended = Softmax <axis = -1> (scores)
        mixed = MatMul (attended, v)
        out_part = Transpose <perm = [0, 2, 1, 3]> (mixed)
    }> (q)
    out_shape = Concat <axis = 0> (q_cells, hidden)
    out = Reshape (out_parts, out_shape)
    y = Gather (out, q_cell)
}
"""
)

# x [T,hidden], tokens [T], attention_mask [batch,sequence] -> y [batch,hidden]. The sum is a product with ones over rows
# padded to a multiple of 16. Kernels pair the elements of a sum by its length: without it, one more pad token, or a batch of
# one, could change the last bit of a mean.
POOL = """
Pool (x, tokens, attention_mask) => (y)
{
    axis1 = Constant <value_ints = [1]> ()
    multiple = Constant <value_ints = [16]> ()
    fill = Constant <value_ints = [15]> ()
    batch = Shape <start = 0, end = 1> (attention_mask)
    sequence = Shape <start = 1, end = 2> (attention_mask)
    hidden = Shape <start = 1, end = 2> (x)
    reach = Add (sequence, fill)
    blocks = Div (reach, multiple)
    width = Mul (blocks, multiple)
    row = Div (tokens, sequence)
    column = Mod (tokens, sequence)
    start = Mul (row, width)
    cell = Add (start, column)
    cells = Unsqueeze (cell, axis1)
    area = Mul (batch, width)
    flat_shape = Concat <axis = 0> (area, hidden)
    zeros = ConstantOfShape (flat_shape)
    flat = ScatterND (zeros, cells, x)
    grid_shape = Concat <axis = 0> (batch, width, hidden)
    grid = Reshape (flat, grid_shape)
    ones_shape = Concat <axis = 0> (batch, axis1, width)
    ones = ConstantOfShape <value = float[1] {1.0}> (ones_shape)
    sums = MatMul (ones, grid)
    total = Squeeze (sums, axis1)
    present = ReduceSum <keepdims = 1> (attention_mask, axis1)
    count = CastLike (present, x)
    least = Constant <value_float = 1.0e-9> ()
    divisor = Max (count, least)
    y = Div (total, divisor)
}
"""

# Slots (token, rank) are sorted by expert, so that the slots of an expert are contiguous. The inverse permutation puts their
# results back, so that a token's sum runs over its ranks, independent of the routing of the other tokens in the batch.
SORTED = """
    axis0 = Constant <value_ints = [0]> ()
    axis2 = Constant <value_ints = [2]> ()
    flat_shape = Constant <value_ints = [-1]> ()
    slot_expert = Reshape (expert_indices, flat_shape)
    total = Shape (slot_expert)
    ascending_experts, order = TopK <axis = 0, largest = 0, sorted = 1> (slot_expert, total)
    top_k = Shape <start = 1, end = 2> (expert_indices)
    tokens = Div (order, top_k)
    experts = Constant <value_ints = [{experts}]> ()
    slot_column = Unsqueeze (slot_expert, axis1)
    is_expert = Equal (slot_column, experts)
    hits = Cast <to = 7> (is_expert)
    counts = ReduceSum <keepdims = 0> (hits, axis0)
"""
MIXED = """
    indices_shape = Shape (expert_indices)
    hidden = Shape (bias)
    total0 = Squeeze (total, axis0)
    zero_index = Constant <value_int = 0> ()
    one_index = Constant <value_int = 1> ()
    ascending = Range (zero_index, total0, one_index)
    inverse = ScatterElements <axis = 0> (order, order, ascending)
    by_slot = Gather (grouped, inverse)
    token_shape = Concat <axis = 0> (indices_shape, hidden)
    by_token = Reshape (by_slot, token_shape)
    share = Unsqueeze (weights, axis2)
    shares = Mul (by_token, share)
    mixed = ReduceSum <keepdims = 0> (shares, axis1)
    {y} = Add (mixed, bias)
"""

_EXPERT = """
    up{i} = Gemm <transB = 1> (rows{i}, w1_{i})
    act{i} = Gelu (up{i})
    out{i} = MatMul (act{i}, w2_{i})
"""


def expert_names(num_experts: int, *stems: str) -> list[str]:
    """Return the names `stem0, stem1, ...`, joined by `", "`, one string per stem."""
    return [", ".join(f"{stem}{i}" for i in range(num_experts)) for stem in stems]


def _experts(num_experts: int) -> str:
    """Return the function for a number of experts; ONNX functions have a fixed number of inputs.

    x [T,hidden], weights [T,top_k], expert_indices [T,top_k] int64, bias [hidden], then every expert's w1 [ffn,hidden] and every
    expert's w2 [ffn,hidden] -> y [T,hidden].
    """
    w1, w2, rows, outputs = expert_names(num_experts, "w1_", "w2_", "rows", "out")
    parts = [
        f"Experts (x, weights, expert_indices, bias, {w1}, {w2}) => (y)\n{{\n    axis1 = Constant <value_ints = [1]> ()",
        SORTED.format(experts=", ".join(map(str, range(num_experts)))),
        f"    rows = Gather (x, tokens)\n    {rows} = Split <axis = 0> (rows, counts)",
        *(_EXPERT.format(i=i) for i in range(num_experts)),
        f"    grouped = Concat <axis = 0> ({outputs})",
        MIXED.format(y="y"),
    ]
    return "".join(parts) + "}"


@cache
def functions(num_experts: int) -> tuple[onnx.FunctionProto, ...]:
    """Return the functions of a model with `num_experts` experts per MoE layer; 0 for a model without such layers."""
    texts = (ROUTER, ATTENTION, POOL, *([_experts(num_experts)] if num_experts else []))
    return tuple(parser.parse_function(HEADER + text) for text in texts)


def _schema(name: str, inputs: str, outputs: str, *attributes: str) -> OpSchema:
    def parameters(text: str) -> list[OpSchema.FormalParameter]:
        return [OpSchema.FormalParameter(n, f"tensor({t})") for n, t in (item.split(":") for item in text.split())]

    kinds = [OpSchema.Attribute(a, OpSchema.AttrType.INT, required=True) for a in attributes]
    return OpSchema(name, DOMAIN, VERSION, inputs=parameters(inputs), outputs=parameters(outputs), attributes=kinds)


# Signatures at trace time, when the weights of all experts are still one tensor; `moembed.export.graph` splits them.
SCHEMAS = {
    "router": _schema("Router", "x:float weight:float", "weights:float expert_indices:int64", "top_k"),
    "attention": _schema(
        "Attention", "qkv:float tokens:int64 attention_mask:int64 cos:float sin:float", "y:float", "num_heads"
    ),
    "pool": _schema("Pool", "x:float tokens:int64 attention_mask:int64", "y:float"),
    "experts": _schema(
        "Experts", "x:float weights:float expert_indices:int64 w1:float w2:float bias:float", "y:float", "num_experts"
    ),
}
